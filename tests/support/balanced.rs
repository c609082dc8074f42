//! The stack as users have it, nginx in front of two instances, but on free ports and without limits.

use stress::throwaway::Throwaway;
use stress::{Instance, InstanceOptions, Nginx, NginxOptions};

use super::{Database, SERVER, Wire, workspace};

/// nginx, two instances and a database of their own. Dropped in this order.
pub(crate) struct Balanced {
    pub(crate) nginx: Nginx,
    pub(crate) instances: [Instance; 2],
    pub(crate) database: Database,
    _sockets: Throwaway,
}

impl Balanced {
    /// With this file of `nginx/`.
    pub(crate) fn open(configuration: &str) -> Balanced {
        let database = Database::new();
        let directory = Throwaway::new("balanced").expect("make a directory");
        let sockets = ["webapi1", "webapi2"].map(|name| directory.path().join(format!("{name}.sock")));
        let instances = sockets.each_ref().map(|socket| {
            let listen = vec![format!("unix:{}", socket.display())];
            Instance::start(&InstanceOptions { listen, ..InstanceOptions::new(SERVER, database.url()) })
                .expect("start an instance")
        });
        let template = workspace().join("nginx").join(configuration);
        let nginx = Nginx::start(&NginxOptions::new(template, sockets)).expect("start nginx");
        Balanced { nginx, instances, database, _sockets: directory }
    }

    /// A connection to nginx.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(&self.nginx.address().to_string())
    }
}
