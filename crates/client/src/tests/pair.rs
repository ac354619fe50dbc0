//! A client and a server of rustls, connected in memory, at the time of the tests.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::signer::{self, Carrier, Draft, NOW};

/// What a server presents.
pub(super) struct Presented {
    /// Its certificate in DER.
    pub(super) certificate: Vec<u8>,
    /// The number of the key that it signs with.
    pub(super) key: u8,
    pub(super) version: &'static SupportedProtocolVersion,
}

impl Presented {
    /// This certificate, over TLS 1.3, with the first key.
    pub(super) fn new(carrier: Carrier) -> Self {
        Self { certificate: carrier.issue(), key: 1, version: &TLS13 }
    }

    /// The certificate of an enclave that carries this document.
    pub(super) fn of(draft: &Draft) -> Self {
        Self::new(Carrier::of(draft))
    }

    pub(super) fn over_tls12(self) -> Self {
        Self { version: &TLS12, ..self }
    }

    /// The server's configuration. rustls itself would refuse a key that is not the certificate's.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signer::private(self.key)));
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        let certified = CertifiedKey::new(chain, any_supported_type(&key).unwrap());
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[self.version]).unwrap();
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver))
    }
}

/// The time of the tests, for rustls.
#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }
}

/// The client's side of a finished handshake, or its error.
pub(super) fn handshake(
    client: ClientConfig,
    presented: &Presented,
) -> Result<ClientConnection, rustls::Error> {
    connect(&Arc::new(at_now(client)), presented.config())
}

/// The configuration at the time of the tests.
pub(super) fn at_now(mut client: ClientConfig) -> ClientConfig {
    client.time_provider = Arc::new(Now);
    client
}

/// The same with a configuration that may have been used before. The client has read all that the server has sent.
pub(super) fn connect(
    client: &Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<ClientConnection, rustls::Error> {
    let name = ServerName::try_from("enclave.example").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && server.read_tls(&mut rest).unwrap() > 0 {
            // A refusal reaches the client as an alert.
            let _refused = server.process_new_packets();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && client.read_tls(&mut rest).unwrap() > 0 {
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking());
    let mut nothing = [0];
    assert!(client.reader().read(&mut nothing).is_err());
    Ok(client)
}
