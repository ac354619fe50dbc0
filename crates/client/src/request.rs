//! Evidence of this moment: requested with a nonce from the attestation server of an enclave.
//!
//! Invariant: the nonce is drawn here, for one request. TLS proves that the other end has the certificate's key; whose key it is
//! only the evidence proves, which this module does not verify. What the server sends is bounded.

use std::io::{self, Read, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_evidence::snp::table::{self, TableError};
use rustls::crypto::ring;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConnection, StreamOwned};
use serde::Deserialize;

use crate::attested::Attested;
use crate::certificate::Parts;
use crate::refusal::Refusal;
use crate::requirements::{Presented, Requirements};
use crate::verifier::{Verifier, config};

/// Bytes of a nonce: 32 random ones do not repeat.
const NONCE: usize = 32;

/// The longest response in bytes: evidence with the longest log, in base64.
const RESPONSE_LIMIT: usize = 1 << 20;

/// The end of a head (RFC 9112, section 2.1).
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Characters of a server's explanation that an error repeats.
const EXPLANATION_LIMIT: usize = 300;

/// What a server sent, and what its evidence must bind. Nothing in it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The platform's name, as the server states it: `nitro`, `tdx`, `snp` or `virtual`. It selects the verification, and proves nothing.
    pub platform: String,
    /// The platform's evidence.
    pub evidence: Vec<u8>,
    /// The event log, encoded.
    pub events: Vec<u8>,
    /// The nonce that was drawn for it.
    pub nonce: Vec<u8>,
    /// The key of the connection's certificate, as `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// The certificates that a host of SEV-SNP passes along with a report, as the table of the GHCB specification. Empty if there
    /// are none.
    pub certificates: Vec<u8>,
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The system has no random bytes.
    #[error("there are no random bytes for a nonce")]
    Random,
    /// The host is neither a name nor an address.
    #[error("`{0}` is not the name of a server")]
    Host(String, #[source] InvalidDnsNameError),
    /// The connection or the handshake failed.
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    /// TLS cannot be used.
    #[error("TLS cannot be used")]
    Tls(#[from] rustls::Error),
    /// The server's certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] Refusal),
    /// The connection ended too early.
    #[error("the response ended after {0} of {1} bytes")]
    Incomplete(usize, usize),
    /// The response is not evidence. The text is what the server sent in its place.
    #[error("the server is not an enclave's attestation server, or has no evidence now; it sent: {0}")]
    Answer(String),
}

/// The body of a response.
#[derive(Deserialize)]
struct Body {
    platform: String,
    document: String,
    events: String,
    #[serde(default)]
    certificates: String,
}

impl Answer {
    /// Requests evidence over `socket`, which is connected to the server at this port of `host`, a name or an address. It is used for
    /// this request only, and should fail after some time ([`crate::Deadline`]): an enclave may take ten seconds for its certificate,
    /// and as long again for the evidence.
    ///
    /// # Errors
    /// If the connection or the handshake fails, or the response is not evidence.
    pub fn request(socket: impl Read + Write, host: &str, port: u16) -> Result<Self, RequestError> {
        let mut nonce = vec![0; NONCE];
        ring::default_provider().secure_random.fill(&mut nonce).map_err(|_| RequestError::Random)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| RequestError::Host(host.to_owned(), error))?;
        let connection = ClientConnection::new(Arc::new(config(Verifier::of_any_key())?), name)?;
        let mut stream = StreamOwned::new(connection, socket);
        let request = format!(
            "GET /.well-known/cloister/evidence?nonce={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            URL_SAFE_NO_PAD.encode(&nonce),
            authority(host, port),
        );
        stream.write_all(request.as_bytes())?;
        let response = receive(&mut stream)?;
        let certificate = stream.conn.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or(Refusal::Certificate("there is none"))?;
        let public_key = Parts::read(certificate)?.public_key;
        let (platform, [evidence, events, certificates]) = body(&response)?;
        Ok(Self { platform, evidence, events, nonce, public_key, certificates })
    }

    /// Verifies the evidence, at `now` in seconds since 1970. Afterwards connections can require its key
    /// ([`Verifier::of_key`]).
    ///
    /// # Errors
    /// If a check of the evidence fails.
    pub fn verify(&self, requirements: &Requirements, now: u64) -> Result<Attested, Refusal> {
        let presented = Presented {
            platform: &self.platform,
            evidence: &self.evidence,
            certificates: &self.chain()?,
            nonce: &self.nonce,
            public_key: &self.public_key,
        };
        Ok(Attested::new(requirements.evidence(&presented, now)?, self.public_key.clone()))
    }

    /// The certificates that a host of SEV-SNP passes along, in the order of the chain, as far as they are there. Nothing in them is
    /// authentic before a report was verified with them; then the connections to the same host can be, too
    /// ([`crate::SnpRequirements::chains`]).
    ///
    /// # Errors
    /// If the host's table is malformed.
    pub fn chain(&self) -> Result<Vec<Vec<u8>>, TableError> {
        table::chain(&self.certificates)
    }
}

/// Host and port as HTTP writes them: an IPv6 address is in brackets (RFC 9110, section 7.2).
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The platform's name, and the evidence, the log and the certificates in a response.
fn body(response: &[u8]) -> Result<(String, [Vec<u8>; 3]), RequestError> {
    let end = response.windows(HEAD_END.len()).position(|window| window == HEAD_END);
    let end = end.unwrap_or(response.len());
    let head = response.get(..end).unwrap_or_default();
    let body = response.get(end.saturating_add(HEAD_END.len())..).unwrap_or_default();
    if let Some(length) = content_length(head).filter(|length| body.len() < *length) {
        return Err(RequestError::Incomplete(body.len(), length));
    }
    if head.starts_with(b"HTTP/1.1 200 ")
        && let Ok(Body { platform, document, events, certificates }) = serde_json::from_slice(body)
        && let [Ok(document), Ok(events), Ok(certificates)] =
            [document, events, certificates].map(|text| STANDARD.decode(text))
    {
        return Ok((platform, [document, events, certificates]));
    }
    let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let text = [status, b" ", body].concat();
    let text = String::from_utf8_lossy(&text);
    Err(RequestError::Answer(text.chars().filter(|c| !c.is_control()).take(EXPLANATION_LIMIT).collect()))
}

/// The length of the body, if the head has it.
fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let (_, value) = head
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

/// Everything that the server sends until it closes the connection. Whether the body is complete is decided by its length, so an end
/// without TLS's own closing message needs no check.
fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = match stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            return if response.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(response) };
        }
        response.extend_from_slice(piece.get(..count).unwrap_or_default());
        if response.len() > RESPONSE_LIMIT {
            return Err(io::Error::other(format!("the response has more than {RESPONSE_LIMIT} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_used_only_if_it_is_complete() {
        let json = r#"{"document":"AQ==","events":"Ag==","platform":"snp","certificates":"Aw=="}"#;
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len());
        assert_eq!(body(whole.as_bytes()).unwrap(), ("snp".to_owned(), [[1], [2], [3]].map(Vec::from)));
        let cut = &whole[..whole.len() - 5];
        let refused = body(cut.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused, format!("the response ended after {} of {} bytes", json.len() - 5, json.len()));
        let refused = body(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"later\"}").unwrap_err();
        assert!(
            refused.to_string().ends_with(r#"it sent: HTTP/1.1 503 Service Unavailable {"error":"later"}"#)
        );
        let refused = body(b"220 mail.example.com").unwrap_err().to_string();
        assert!(refused.ends_with("it sent: 220 mail.example.com "), "{refused}");
    }

    #[test]
    fn an_ipv6_address_is_in_brackets() {
        assert_eq!(authority("::1", 8443), "[::1]:8443");
        assert_eq!(authority("enclave.example", 443), "enclave.example:443");
    }
}
