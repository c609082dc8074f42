//! Cancelling what a session does, from outside of it.

use std::fmt::{self, Debug, Formatter};

/// What names a session in a cancel request.
///
/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `BackendKeyData`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendKey {
    /// The server process of this session.
    pub process_id: i32,
    /// The secret that proves that a cancel request comes from its owner: 4 bytes, or up to 256 from protocol 3.2 on.
    pub secret_key: Box<[u8]>,
}

impl BackendKey {
    pub(crate) fn new(process_id: i32, secret_key: &[u8]) -> BackendKey {
        BackendKey { process_id, secret_key: secret_key.into() }
    }

    /// The bytes that ask the server to cancel what the session does now. They are all that is sent on a new connection to the
    /// same server; it answers nothing and closes. What was running then fails with `57014`, if it had not ended before.
    ///
    /// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats, `CancelRequest`.
    pub fn cancel_request(&self) -> Vec<u8> {
        // Never more than 256 bytes of a key: that is all that is taken from a server.
        let len = u32::try_from(12 + self.secret_key.len()).unwrap_or(u32::MAX);
        [&len.to_be_bytes()[..], &CANCEL_CODE.to_be_bytes(), &self.process_id.to_be_bytes(), &self.secret_key]
            .concat()
    }
}

/// Stands where a start-up message has its version.
const CANCEL_CODE: u32 = 80_877_102;

impl Debug for BackendKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_request_has_the_whole_key() {
        let request = BackendKey::new(258, &[1, 2, 3, 4]).cancel_request();
        assert_eq!(request, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\x02\x01\x02\x03\x04");
        let request = BackendKey::new(1, &[9; 256]).cancel_request();
        assert_eq!((request.len(), &request[..4]), (268, &[0, 0, 1, 12][..]));
    }
}
