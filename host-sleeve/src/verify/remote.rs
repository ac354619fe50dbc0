//! Evidence from a running enclave: its attestation server, over TLS.
//!
//! Invariant: the certificate is not trusted for anything. TLS proves that the other end has its key, and the evidence, which binds
//! that key and a nonce drawn here, proves whose key it is. What the server sends is bounded in length and in time.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::error::{Error, ErrorContext as _, Result};

/// What a URL begins with.
const SCHEME: &str = "https://";

/// The port without one in the URL (RFC 9110, section 4.2.2).
const DEFAULT_PORT: u16 = 443;

/// Bytes of a nonce that is drawn here: 32 random ones do not repeat.
const NONCE: usize = 32;

/// Time limit for a connection attempt.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Time limit for everything: an enclave may take ten seconds for its certificate, and as long again for the evidence.
const TIME: Duration = Duration::from_secs(30);

/// The longest response in bytes: evidence with the longest log, in base64.
const RESPONSE_LIMIT: u64 = 1 << 20;

/// What a server has sent, and the key of its connection.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The platform's evidence.
    pub(super) evidence: Vec<u8>,
    /// The event log.
    pub(super) events: Vec<u8>,
    /// The nonce that was drawn for it.
    pub(super) nonce: Vec<u8>,
    /// The key of the connection's certificate, as `SubjectPublicKeyInfo` in DER.
    pub(super) public_key: Vec<u8>,
}

/// The body of a response.
#[derive(Deserialize)]
struct Body {
    document: String,
    events: String,
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// The server that a URL names; `None` if the text is no `https` URL.
    pub(super) fn parse(text: &str) -> Option<Result<Self>> {
        let rest = text.strip_prefix(SCHEME)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, Some(DEFAULT_PORT)),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(match port {
            Some(port) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(Error::operator(format!("{text} does not name an attestation server"))
                .hint("write https://HOST:PORT, without a path")),
        })
    }

    /// Requests evidence.
    pub(super) fn fetch(&self) -> Result<Fetched> {
        let deadline = Instant::now() + TIME;
        let mut nonce = vec![0; NONCE];
        random(&mut nonce).context(|| "there are no random bytes for a nonce".to_owned())?;
        let what = || format!("cannot get evidence from {}:{}", self.host, self.port);
        let mut stream = self.connect(deadline).context(what)?;
        let request = format!(
            "GET /.well-known/cloister/evidence?nonce={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            URL_SAFE_NO_PAD.encode(&nonce),
            self.host
        );
        stream.write_all(request.as_bytes()).context(what)?;
        let response = receive(&mut stream, deadline).context(what)?;
        let certificate = stream.conn.peer_certificates().and_then(<[_]>::first);
        let public_key = certificate.and_then(|der| public_key(der)).ok_or_else(|| {
            Error::operator(what()).hint("the server presented no certificate with a key that can be read")
        })?;
        let body = self.body(&response)?;
        let bytes =
            |text: &str| STANDARD.decode(text).map_err(|error| Error::operator(what()).because(error));
        Ok(Fetched { evidence: bytes(&body.document)?, events: bytes(&body.events)?, nonce, public_key })
    }

    fn connect(&self, deadline: Instant) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(socket) => {
                    let left =
                        deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                    socket.set_read_timeout(Some(left))?;
                    socket.set_write_timeout(Some(left))?;
                    let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                    let connection = ClientConnection::new(config().map_err(io::Error::other)?, name);
                    return Ok(StreamOwned::new(connection.map_err(io::Error::other)?, socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The evidence in a response; the server's own words if it refused.
    fn body(&self, response: &[u8]) -> Result<Body> {
        let separator = response.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = separator
            .and_then(|end| Some((response.get(..end)?, response.get(end + 4..)?)))
            .unwrap_or_default();
        let status = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default())
            .into_owned();
        if head.starts_with(b"HTTP/1.1 200 ")
            && let Ok(body) = serde_json::from_slice(body)
        {
            return Ok(body);
        }
        let said: String =
            String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(300).collect();
        Err(Error::operator(format!("{}:{} sent no evidence", self.host, self.port)).hint(format!(
            "it is not an enclave's attestation server, or has none now; its answer: {status} {said}"
        )))
    }
}

/// Everything that the server sends until it closes the connection.
fn receive(stream: &mut StreamOwned<ClientConnection, TcpStream>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.sock.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut piece) {
            Ok(0) => return Ok(response),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(response),
            Err(error) => return Err(error),
        };
        response.extend_from_slice(piece.get(..count).unwrap_or_default());
        if u64::try_from(response.len()).unwrap_or(u64::MAX) > RESPONSE_LIMIT {
            return Err(io::Error::other(format!("the response has more than {RESPONSE_LIMIT} bytes")));
        }
    }
}

fn random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        bytes = bytes.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// The key in a certificate.
fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(der).ok()?;
    parsed.tbs_certificate().subject_public_key_info().to_der().ok()
}

/// TLS 1.3, with any certificate whose key the other end has.
fn config() -> std::result::Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(KeyOnly(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Checks that the other end has the key of its certificate, and leaves the rest to the evidence.
#[derive(Debug)]
struct KeyOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for KeyOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let parsed =
            |text: &str| Url::parse(text).unwrap().map(|url| (url.host, url.port)).map_err(|e| e.to_string());
        assert_eq!(parsed("https://enclave.example:8443"), Ok(("enclave.example".into(), 8443)));
        assert_eq!(parsed("https://enclave.example/"), Ok(("enclave.example".into(), 443)));
        assert_eq!(parsed("https://[::1]:8443"), Ok(("::1".into(), 8443)));
        assert_eq!(parsed("https://[::1]"), Ok(("::1".into(), 443)));
        for text in [
            "https://",
            "https://:1",
            "https://host:0x1",
            "https://host/path",
            "https://user@host",
            "https://host:99999",
        ] {
            assert!(parsed(text).unwrap_err().ends_with("does not name an attestation server"), "{text}");
        }
        assert!(Url::parse("evidence.cose").is_none());
    }
}
