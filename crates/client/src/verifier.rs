//! The certificate verifier for rustls.
//!
//! Invariant: the key that signed the handshake is the one that was compared with the evidence: both are read from the
//! certificate by the same code. Neither TLS 1.2 nor a resumed session, which presents no certificate, is accepted.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::attested::Attested;
use crate::certificate::Parts;
use crate::refusal::Refusal;
use crate::requirements::Requirements;

/// Decides whether the other end is the enclave that is required. The name of the server does not matter: evidence has none.
#[derive(Debug)]
pub struct Verifier {
    required: Required,
    provider: Arc<CryptoProvider>,
}

/// What is required of the certificate.
#[derive(Debug)]
enum Required {
    /// That it carries evidence which passes.
    Evidence(Box<Requirements>),
    /// This key, as `SubjectPublicKeyInfo` in DER.
    Key(Vec<u8>),
    /// A key.
    Nothing,
}

impl Verifier {
    /// Accepts a certificate that carries evidence with this content for its own key.
    #[must_use]
    pub fn of_evidence(requirements: Requirements) -> Self {
        Self::new(Required::Evidence(Box::new(requirements)))
    }

    /// Accepts the key of an enclave that was verified before ([`crate::Answer::verify`]). The key stays the same until the enclave
    /// ends; events that it records later are not noticed.
    #[must_use]
    pub fn of_key(enclave: &Attested) -> Self {
        Self::new(Required::Key(enclave.public_key().to_vec()))
    }

    /// Accepts any certificate whose key the other end has. Its owner must be verified by other means, or is unknown.
    pub(crate) fn of_any_key() -> Self {
        Self::new(Required::Nothing)
    }

    fn new(required: Required) -> Self {
        Self { required, provider: Arc::new(ring::default_provider()) }
    }
}

/// A configuration with this verifier: TLS 1.3 alone, with ring, and without resumed sessions.
///
/// Another one, assembled with the same verifier, must disable resumption too: rustls verifies no certificate when it resumes a
/// session, which may be hours old.
///
/// # Errors
/// If rustls refuses its own provider.
pub fn config(verifier: Verifier) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::clone(&verifier.provider);
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl ServerCertVerifier for Verifier {
    /// Certificates after the first one are ignored: an enclave's has no issuer.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.required {
            Required::Evidence(requirements) => {
                drop(requirements.certificate(certificate, now.as_secs())?);
            }
            Required::Key(key) if Parts::read(certificate)?.public_key != *key => {
                return Err(Refusal::Key.into());
            }
            Required::Key(_) | Required::Nothing => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(Parts::read(certificate)?.public_key);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
