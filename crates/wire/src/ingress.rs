//! Port 17003: one connection for each client, a header frame, then raw bytes.
//!
//! Its law: the header names a target that the measured manifest declares; it is never an address. There is no reply to
//! the header, so a client waits for no extra round trip: a refused connection is closed, and the reason is counted in
//! the status and in the supervisor's log.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The longest header in bytes: a target's name, an address and the words around them.
pub const HEADER_LIMIT: usize = 1024;

/// The longest chunk in bytes on a [`Framing::Chunked`] stream: one vsock write, with its length.
pub const CHUNK_LIMIT: usize = crate::ports::MAX_VSOCK_WRITE - crate::frame::HEADER;

/// How the bytes of both directions travel, behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// As they are; the end of a direction is the transport's half-close.
    Raw,
    /// Frames of at most [`CHUNK_LIMIT`] bytes ([`crate::frame`]); an empty frame is the end of its direction, and the host
    /// closes the transport when it has seen both ends. For transports that carry no half-close: `vhost-device-vsock`
    /// 0.3.0 makes the host's end both directions and drops the enclave's (`vsock_conn.rs`, `VSOCK_OP_SHUTDOWN`). A
    /// transport that closes before the empty frame has broken off.
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
            version: 1,
            port: 80,
            client: Some("192.0.2.7:50000".parse().unwrap()),
            framing: Framing::Chunked,
        };
        assert_eq!(
            serde_json::to_string(&header).unwrap(),
            r#"{"version":1,"port":80,"client":"192.0.2.7:50000","framing":"chunked"}"#
        );
    }

    #[test]
    fn a_header_with_an_unknown_field_is_refused() {
        let text = r#"{"version":1,"port":80,"framing":"raw","path":"/etc"}"#;
        assert!(serde_json::from_str::<Header>(text).is_err());
    }
}
