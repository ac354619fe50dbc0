//! Signs an image with the operator's key.
//!
//! Invariant: a [`Signer`]'s key belongs to its certificate; the key exists in memory only, and its text is not
//! retained.

use std::fmt;

use p384::SecretKey;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::pkcs8::DecodePrivateKey;

use super::{Certificate, Damage, Error, Signing, cose};
use crate::measure::Pcr;

/// A key and its certificate.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    certificate: Certificate,
}

/// Why a key and a certificate cannot sign. The operator must provide others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is not a private key on P-384 in PEM, or it is encrypted.
    #[error("the signing key is not an unencrypted P-384 private key in PEM (PKCS#8 or SEC1)")]
    Key,
    /// The certificate cannot be used.
    #[error("the signing certificate cannot be used: {0}")]
    Certificate(&'static str),
    /// The two do not belong together.
    #[error("the signing certificate is for another key")]
    Mismatch,
}

impl Signer {
    /// Reads a key and a certificate, both in PEM.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, SignError> {
        let secret = SecretKey::from_pkcs8_pem(key).or_else(|_| SecretKey::from_sec1_pem(key));
        let key = SigningKey::from(secret.map_err(|_| SignError::Key)?);
        let certificate = Certificate::from_pem(certificate).map_err(SignError::Certificate)?;
        if VerifyingKey::from(&key) != *certificate.key() {
            return Err(SignError::Mismatch);
        }
        Ok(Self { key, certificate })
    }

    /// The certificate, whose digest becomes PCR8.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The signature section for this value of PCR0: the same bytes each time.
    pub fn sign(&self, pcr0: &Pcr) -> Result<Vec<u8>, Error> {
        let payload = cose::payload(pcr0);
        let signature: Result<Signature, _> = self.key.try_sign(&cose::to_be_signed(&payload));
        let signature = signature.map_err(|_| Error::Parts("signing with the key failed"))?;
        Ok(cose::section(&payload, &signature.to_bytes(), self.certificate.pem()))
    }
}

impl Signing<'_> {
    /// PCR8 of a file with this value of PCR0; zeros if it is not signed.
    pub fn signer_register(&self, pcr0: &Pcr) -> Result<Pcr, Error> {
        let section = self.section(pcr0)?;
        Ok(section.map_or(Pcr::ZERO, |(_, certificate)| Pcr::of(certificate.der())))
    }

    /// The section for this value of PCR0, and the certificate in it.
    pub(super) fn section(&self, pcr0: &Pcr) -> Result<Option<(Vec<u8>, Certificate)>, Error> {
        match self {
            Self::Unsigned => Ok(None),
            Self::By(signer) => Ok(Some((signer.sign(pcr0)?, signer.certificate.clone()))),
            Self::Made(section) => {
                let signed = cose::Signed::decode(section).map_err(Damage::Signature)?;
                let certificate = Certificate::from_pem(&signed.certificate).map_err(Damage::Signature)?;
                signed.verify(pcr0, certificate.key()).map_err(Damage::Signature)?;
                Ok(Some((section.to_vec(), certificate)))
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("certificate", &self.certificate.subject()).finish_non_exhaustive()
    }
}
