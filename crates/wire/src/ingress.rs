//! Port 17003: one connection for each client, a header frame, then the bytes of both directions in chunks.
//!
//! Its law: the header names a target that the measured manifest declares; it is never an address. There is no reply to
//! the header, so a client waits for no extra round trip: a refused connection is closed, and the reason is counted in
//! the status and in the supervisor's log. An end and a break are both said in the stream: no transport's own signals are
//! relied on.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The longest header in bytes: a target's name, an address and the words around them.
pub const HEADER_LIMIT: usize = 1024;

/// The longest chunk in bytes on a [`Framing::Chunked`] stream: one vsock write, with its length.
pub const CHUNK_LIMIT: usize = crate::ports::MAX_VSOCK_WRITE - crate::frame::HEADER;

/// In place of a chunk's length: the sender's connection broke off. It sends nothing more and reads nothing more. It may
/// also follow the empty chunk: the direction had ended, and the other one is no longer read.
pub const BREAK: u32 = u32::MAX;

/// How the bytes of both directions travel, behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Frames of at most [`CHUNK_LIMIT`] bytes ([`crate::frame`]); an empty frame is the end of its direction, [`BREAK`]
    /// in place of a length is a reset, and the host closes the transport when it has seen both ends. A transport that
    /// closes before that has broken off.
    ///
    /// The transports cannot say it themselves. The kernel's vsock reports the close of a killed process as it reports an
    /// orderly end, and has no reset that a program can send; `vhost-device-vsock` 0.3.0 makes the host's half-close an
    /// end of both directions and drops the enclave's (`vsock_conn.rs`, `VSOCK_OP_SHUTDOWN`).
    Chunked,
}

/// The first frame of an ingress connection. It is this channel's hello as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version spoken: [`crate::hello::VERSION`].
    pub version: u32,
    /// The port number of an `ingress` entry of the manifest.
    pub port: u16,
    /// Who connected to the host, as the host tells it: for logs and for the PROXY protocol, never for a decision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<SocketAddr>,
    /// How the host's bytes follow.
    pub framing: Framing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_these_bytes() {
        let header = Header {
            version: 2,
            port: 80,
            client: Some("192.0.2.7:50000".parse().unwrap()),
            framing: Framing::Chunked,
        };
        assert_eq!(
            serde_json::to_string(&header).unwrap(),
            r#"{"version":2,"port":80,"client":"192.0.2.7:50000","framing":"chunked"}"#
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
    fn a_break_is_no_length_that_a_chunk_can_have() {
        assert!(usize::try_from(BREAK).is_ok_and(|length| length > CHUNK_LIMIT));
    }
}
