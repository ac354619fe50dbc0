//! Port 17004: requests of an enclave on the platform `virtual` to the development security module in its sleeve.
//!
//! Invariant: after the hellos the enclave sends requests and the host answers each of them, one at a time and in order.
//! A request and its response are one frame each. The bytes are those that `/dev/nsm` takes and returns, CBOR as in the
//! vendor's `aws-nitro-enclaves-nsm-api`, and are not interpreted here; their limits are those of the kernel's driver.
//!
//! Like every channel it is opened by the host, although the requests travel the other way.

use crate::frame::{self, FrameError};

/// Maximum length of a request in bytes (`NSM_REQUEST_MAX_SIZE`, the kernel's `drivers/misc/nsm.c`).
pub const REQUEST_LIMIT: usize = 0x1000;

/// Maximum length of a response in bytes (`NSM_RESPONSE_MAX_SIZE`, same file).
pub const RESPONSE_LIMIT: usize = 0x3000;

/// The frame with this request, for the enclave to send.
pub fn request(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    frame::encode_bytes(bytes, REQUEST_LIMIT)
}

/// The frame with this response, for the host to send.
pub fn response(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    frame::encode_bytes(bytes, RESPONSE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;
    use crate::hello::{Hello, Protocol, Role};

    #[test]
    fn the_channel_has_these_bytes() {
        let hello = Hello::new(Protocol::SecurityModule, Role::Host);
        assert_eq!(
            serde_json::to_string(&hello).unwrap(),
            r#"{"protocol":"security-module","version":3,"role":"host"}"#
        );
        assert_eq!(request(b"\x69GetRandom").unwrap(), b"\0\0\0\x0a\x69GetRandom");
        assert_eq!(response(b"\x67LockPCR").unwrap(), b"\0\0\0\x08\x67LockPCR");
    }

    #[test]
    fn a_request_and_a_response_over_the_drivers_limits_are_neither_sent_nor_read() {
        let long = vec![0; RESPONSE_LIMIT + 1];
        assert!(request(&long[..REQUEST_LIMIT]).is_ok());
        assert!(matches!(request(&long[..=REQUEST_LIMIT]), Err(FrameError::TooLong { limit: 0x1000, .. })));
        assert!(response(&long[..RESPONSE_LIMIT]).is_ok());
        assert!(matches!(response(&long), Err(FrameError::TooLong { limit: 0x3000, .. })));
        let mut decoder = Decoder::new(REQUEST_LIMIT);
        decoder.push(&response(&long[..=REQUEST_LIMIT]).unwrap());
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { length: 0x1001, .. })));
    }
}
