//! An authority of the cluster's own, and a certificate for each host.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use crate::process::user::User;
use crate::{Error, files};

/// It lives as long as the cluster and signs for no other.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) root: PathBuf,
}

#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub root: String,
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub(super) fn new(directory: &Path) -> Result<Authority, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a cluster of cargo stress");
        let key = KeyPair::generate().map_err(refused)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(refused)?;
        let root = files::write(directory.join("root.pem"), issuer.pem())?;
        Ok(Authority { issuer, root })
    }

    /// A certificate for a name and its addresses, and its key, which PostgreSQL only takes from its own user, in a
    /// directory of that user.
    pub(super) fn sign(
        &self,
        name: &str,
        addresses: [Ipv4Addr; 2],
        home: &Path,
        user: Option<&User>,
    ) -> Result<Identity, Error> {
        let mut params = CertificateParams::new([name.to_owned()]).map_err(refused)?;
        params.subject_alt_names.extend(addresses.map(|address| SanType::IpAddress(address.into())));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?;
        let certificate = files::write(home.join("host.pem"), certificate.pem())?;
        let key = files::write(home.join("host.key"), key.serialize_pem())?;
        own(&key, 0o600, user)?;
        let text = |path: &Path| path.display().to_string();
        Ok(Identity { root: text(&self.root), certificate: text(&certificate), key: text(&key) })
    }
}

pub(super) fn own(path: &Path, mode: u32, user: Option<&User>) -> Result<(), Error> {
    let owned = fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .and_then(|()| chown(path, user.map(|user| user.uid), user.map(|user| user.gid)));
    owned.map_err(Error::io(format!("give {} away", path.display())))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: rcgen::Error) -> Error {
    Error::Refused(format!("cannot make a certificate: {error}"))
}
