//! Evidence of this moment: requested with a nonce from the attestation server of an enclave.
//!
//! Invariant: the nonce is drawn here, for one request. TLS proves that the other end has the certificate's key; whose key it is
//! only the evidence proves, which this module does not verify. What the server sends is bounded.

use std::io::{self, Read, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_evidence::Verified;
use cloister_evidence::nitro::Document;
use rustls::crypto::ring;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConnection, StreamOwned};
use serde::Deserialize;

use crate::certificate::Parts;
use crate::refusal::Refusal;
use crate::requirements::Requirements;
use crate::verifier::{Verifier, config};

/// Bytes of a nonce: 32 random ones do not repeat.
const NONCE: usize = 32;

/// The longest response in bytes: evidence with the longest log, in base64.
const RESPONSE_LIMIT: usize = 1 << 20;

/// Characters of a server's explanation that an error repeats.
const EXPLANATION_LIMIT: usize = 300;

/// What a server sent, and what its evidence must bind. Nothing in it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The platform's evidence.
    pub evidence: Vec<u8>,
    /// The event log, encoded.
    pub events: Vec<u8>,
    /// The nonce that was drawn for it.
    pub nonce: Vec<u8>,
    /// The key of the connection's certificate, as `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
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
    /// The response is not evidence. The text is what the server sent in its place.
    #[error("it is not an enclave's attestation server, or has no evidence now; its answer: {0}")]
    Answer(String),
}

/// The body of a response.
#[derive(Deserialize)]
struct Body {
    document: String,
    events: String,
}

impl Answer {
    /// Requests evidence over `socket`, which is connected to the server. It is used for this request only, and should fail after
    /// some time ([`crate::Deadline`]): an enclave may take ten seconds for its certificate, and as long again for the evidence.
    ///
    /// # Errors
    /// If the connection or the handshake fails, or the response is not evidence.
    pub fn request(socket: impl Read + Write, host: &str) -> Result<Self, RequestError> {
        let mut nonce = vec![0; NONCE];
        ring::default_provider().secure_random.fill(&mut nonce).map_err(|_| RequestError::Random)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| RequestError::Host(host.to_owned(), error))?;
        let connection = ClientConnection::new(Arc::new(config(Verifier::of_any_key())?), name)?;
        let mut stream = StreamOwned::new(connection, socket);
        let request = format!(
            "GET /.well-known/cloister/evidence?nonce={} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
            URL_SAFE_NO_PAD.encode(&nonce),
        );
        stream.write_all(request.as_bytes())?;
        let response = receive(&mut stream)?;
        let certificate = stream.conn.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or(Refusal::Certificate("there is none"))?;
        let public_key = Parts::read(certificate)?.public_key;
        let (evidence, events) = body(&response)?;
        Ok(Self { evidence, events, nonce, public_key })
    }

    /// Verifies the evidence, at `now` in seconds since 1970. Afterwards connections can require its key ([`Verifier::of_key`]).
    ///
    /// # Errors
    /// If a check of the evidence fails.
    pub fn verify(&self, requirements: &Requirements, now: u64) -> Result<Verified<Document>, Refusal> {
        requirements.evidence(&self.evidence, &self.nonce, &self.public_key, now).map_err(Refusal::Evidence)
    }
}

/// The evidence and the log in a response.
fn body(response: &[u8]) -> Result<(Vec<u8>, Vec<u8>), RequestError> {
    let separator = response.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = separator
        .and_then(|end| Some((response.get(..end)?, response.get(end.saturating_add(4)..)?)))
        .unwrap_or_default();
    if head.starts_with(b"HTTP/1.1 200 ")
        && let Ok(Body { document, events }) = serde_json::from_slice(body)
        && let (Ok(document), Ok(events)) = (STANDARD.decode(document), STANDARD.decode(events))
    {
        return Ok((document, events));
    }
    let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let text = [status, b" ", body].concat();
    let text = String::from_utf8_lossy(&text);
    Err(RequestError::Answer(text.chars().filter(|c| !c.is_control()).take(EXPLANATION_LIMIT).collect()))
}

/// Everything that the server sends until it closes the connection. A truncated body is no JSON, so an end without TLS's own
/// closing message needs no check.
fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = match stream.read(&mut piece) {
            Ok(0) => return Ok(response),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(response),
            Err(error) => return Err(error),
        };
        response.extend_from_slice(piece.get(..count).unwrap_or_default());
        if response.len() > RESPONSE_LIMIT {
            return Err(io::Error::other(format!("the response has more than {RESPONSE_LIMIT} bytes")));
        }
    }
}
