//! Port 17003: one connection for each client, a header frame, then the bytes of both directions in chunks.
//!
//! Invariant: the header names a port that the measured manifest declares, never an address. There is no reply to the
//! header, which saves the client a round trip: a refused connection is closed, counted in the status, and its reason
//! is logged by the supervisor. End and break are both encoded in the stream and do not rely on signals of the
//! transport.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Maximum length of a header in bytes: a version, a port, an address and their field names.
pub const HEADER_LIMIT: usize = 1024;

/// Maximum length of a chunk in bytes on a [`Framing::Chunked`] stream: with its length prefix, one vsock write.
pub const CHUNK_LIMIT: usize = crate::ports::MAX_VSOCK_WRITE - crate::frame::HEADER;

/// Sent in place of a chunk's length if the sender's connection broke. The sender neither sends nor reads anything
/// after it. It may also follow the empty chunk: that direction had ended, and the other one is no longer read.
pub const BREAK: u32 = u32::MAX;

/// The encoding of the bytes of both directions after the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Frames of at most [`CHUNK_LIMIT`] bytes ([`crate::frame`]). An empty frame is the end of its direction,
    /// [`BREAK`] in place of a length is a reset, and the host closes the transport when it has seen both ends. A
    /// transport that closes earlier means that the connection broke.
    ///
    /// The transports themselves cannot express this. The kernel's vsock reports the close of a killed process like an
    /// orderly end, and has no reset that a program can send; `vhost-device-vsock` 0.3.0 turns the host's half-close
    /// into an end of both directions and drops the enclave's (`vsock_conn.rs`, `VSOCK_OP_SHUTDOWN`).
    Chunked,
}

/// The first frame of an ingress connection, which is also this channel's hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The protocol version: [`crate::hello::VERSION`].
    pub version: u32,
    /// The port number of an `ingress` entry of the manifest.
    pub port: u16,
    /// The address of the client, as reported by the host: for logs and the PROXY protocol, never for a decision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<SocketAddr>,
    /// The encoding of the bytes that follow.
    pub framing: Framing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_these_bytes() {
        let header = Header {
            version: 3,
            port: 80,
            client: Some("192.0.2.7:50000".parse().unwrap()),
            framing: Framing::Chunked,
        };
        assert_eq!(
            serde_json::to_string(&header).unwrap(),
            r#"{"version":3,"port":80,"client":"192.0.2.7:50000","framing":"chunked"}"#
        );
    }

    #[test]
    fn a_header_with_an_unknown_field_or_framing_is_refused() {
        let text = r#"{"version":1,"port":80,"framing":"chunked","path":"/etc"}"#;
        assert!(serde_json::from_str::<Header>(text).is_err());
        let text = r#"{"version":1,"port":80,"framing":"raw"}"#;
        assert!(serde_json::from_str::<Header>(text).is_err());
    }

    #[test]
    fn a_break_is_not_a_valid_chunk_length() {
        assert!(usize::try_from(BREAK).is_ok_and(|length| length > CHUNK_LIMIT));
    }
}
