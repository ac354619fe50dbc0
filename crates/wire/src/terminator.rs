//! The terminator, the program that ends TLS, and the socket pairs to its neighbours.
//!
//! Invariant: it parses what strangers send, so all its messages are treated as hostile, as the [gateway](crate::gateway)'s are.
//! It holds no key: the [attestor](crate::attestor) signs each handshake and makes the certificates. Packets are those of
//! [`packet`](crate::packet); every pair's ends are kept open by init.
//!
//! | pair | from | to | messages |
//! |---|---|---|---|
//! | [`CHANNEL_FD`] | supervisor | terminator | [`ToTerminator`], [`FromTerminator`] |
//! | [`CLIENTS_FD`] | gateway | terminator | [`HandOver`] |
//! | [`ATTESTOR_FD`] | terminator | attestor | [`Question`], [`Reply`] |
//! | [`SIGNER_FD`] | terminator | attestor | [`Sign`], [`Signed`] |

use serde::{Deserialize, Serialize};

use crate::packet::{Bounded, LIMIT};

/// The terminator's name among the servants.
pub const NAME: &str = "@terminator";

/// Path of the program in ramdisk 1.
pub const PROGRAM: &str = "/sbin/terminator";

/// Its descriptor of the pair to the supervisor.
pub const CHANNEL_FD: i32 = 3;

/// Its descriptor of the pair from the gateway.
pub const CLIENTS_FD: i32 = 4;

/// Its descriptor of the pair to the attestor, for certificates and for clients of the attestation server.
pub const ATTESTOR_FD: i32 = 5;

/// Its descriptor of the pair to the attestor for signatures. It is a pair of its own, as the TLS library waits for a signature
/// without running anything else.
pub const SIGNER_FD: i32 = 6;

/// Maximum number of connections whose TLS is ended at once. Each takes up to 64 KiB, the longest first message of a handshake, until
/// that is complete, and some 20 KiB then.
pub const MAX_CONNECTIONS: usize = 128;

/// Maximum bytes of a certificate: evidence of 32 KiB, and what is around it.
pub const CERTIFICATE_LIMIT: usize = 36 << 10;

/// Maximum bytes of what is signed: the padding, the context and a hash of TLS 1.3 (RFC 8446, section 4.4.3) are 146.
pub const CONTENT_LIMIT: usize = 256;

/// A message from the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToTerminator {
    /// A request to report that it serves, with the ID that the report repeats.
    Confirm {
        /// Different for each request.
        id: u64,
    },
}

/// A message to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromTerminator {
    /// It serves.
    Ready {
        /// The ID of the request.
        id: u64,
    },
}

/// A message from the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HandOver {
    /// A client of the attestation server, with one descriptor.
    Client,
}

/// A message from the terminator to the attestor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Which certificate is presented now?
    Certificate {
        /// Repeated in the reply.
        id: u64,
    },
    /// A client of the attestation server whose TLS is ended, with one descriptor.
    Client,
}

/// The reply to [`Question::Certificate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// It is presented to handshakes that begin within the given time.
    Certificate {
        /// The ID of the question.
        id: u64,
        /// The certificate's DER in base64.
        der: String,
        /// For how many more milliseconds.
        fresh_ms: u64,
    },
    /// There is none now.
    None {
        /// The ID of the question.
        id: u64,
    },
    /// The certificate that was sent last must not be presented any more: an event was recorded that its evidence does not
    /// contain. It answers no question.
    Outdated,
}

/// A request for a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// Repeated in the reply.
    pub id: u64,
    /// What is signed, in base64: the content of a TLS 1.3 server's `CertificateVerify`.
    pub content: String,
}

/// The reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The ID of the request.
    pub id: u64,
    /// The signature in base64; `None` if the content is no such one.
    pub signature: Option<String>,
}

impl Bounded for ToTerminator {
    fn excess(&self) -> Option<(usize, usize)> {
        None
    }
}

impl Bounded for FromTerminator {
    fn excess(&self) -> Option<(usize, usize)> {
        None
    }
}

impl Bounded for HandOver {
    fn excess(&self) -> Option<(usize, usize)> {
        None
    }
}

impl Bounded for Question {
    fn excess(&self) -> Option<(usize, usize)> {
        None
    }
}

impl Bounded for Reply {
    fn excess(&self) -> Option<(usize, usize)> {
        let Self::Certificate { der, .. } = self else { return None };
        let limit = base64_length(CERTIFICATE_LIMIT);
        Some((der.len(), limit)).filter(|(length, limit)| length > limit)
    }
}

impl Bounded for Sign {
    fn excess(&self) -> Option<(usize, usize)> {
        let limit = base64_length(CONTENT_LIMIT);
        Some((self.content.len(), limit)).filter(|(length, limit)| length > limit)
    }
}

impl Bounded for Signed {
    fn excess(&self) -> Option<(usize, usize)> {
        let length = self.signature.as_ref()?.len();
        Some((length, CONTENT_LIMIT)).filter(|(length, limit)| length > limit)
    }
}

/// Characters of so many bytes in base64: four for three bytes.
const fn base64_length(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

// A certificate with the longest evidence fits into a packet, with what is around it.
const _: () =
    assert!(base64_length(CERTIFICATE_LIMIT) + 256 <= LIMIT, "a certificate does not fit into a packet");

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::packet::{decode, encode};

    fn has_bytes<M>(message: &M, bytes: &str)
    where
        M: Serialize + DeserializeOwned + Bounded + PartialEq + std::fmt::Debug,
    {
        assert_eq!(String::from_utf8(encode(message).unwrap()).unwrap(), bytes);
        assert_eq!(&decode::<M>(bytes.as_bytes()).unwrap(), message);
    }

    #[test]
    fn messages_have_these_bytes() {
        has_bytes(&ToTerminator::Confirm { id: 7 }, r#"{"confirm":{"id":7}}"#);
        has_bytes(&FromTerminator::Ready { id: 7 }, r#"{"ready":{"id":7}}"#);
        has_bytes(&HandOver::Client, r#""client""#);
        has_bytes(&Question::Certificate { id: 1 }, r#"{"certificate":{"id":1}}"#);
        has_bytes(&Question::Client, r#""client""#);
        let reply = Reply::Certificate { id: 1, der: "MAA=".into(), fresh_ms: 9 };
        has_bytes(&reply, r#"{"certificate":{"id":1,"der":"MAA=","fresh_ms":9}}"#);
        has_bytes(&Reply::None { id: 1 }, r#"{"none":{"id":1}}"#);
        has_bytes(&Reply::Outdated, r#""outdated""#);
        has_bytes(&Sign { id: 2, content: "ICA=".into() }, r#"{"id":2,"content":"ICA="}"#);
        has_bytes(&Signed { id: 2, signature: None }, r#"{"id":2,"signature":null}"#);
    }

    #[test]
    fn a_content_or_certificate_over_its_limit_is_refused() {
        let reply = |length| Reply::Certificate { id: 1, der: "A".repeat(length), fresh_ms: 1 };
        assert!(decode::<Reply>(&encode(&reply(49_152)).unwrap()).is_ok());
        assert!(decode::<Reply>(&encode(&reply(49_153)).unwrap()).is_err());
        let packet = encode(&Sign { id: 2, content: "A".repeat(345) }).unwrap();
        assert!(decode::<Sign>(&packet).is_err());
        assert!(decode::<Sign>(&encode(&Sign { id: 2, content: "A".repeat(344) }).unwrap()).is_ok());
    }
}
