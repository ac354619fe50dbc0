//! The certificate that signs an image.
//!
//! Invariant: a [`Certificate`] holds a key on the curve P-384, the only one Nitro accepts. Its issuer is not checked:
//! the hardware measures the certificate. Its validity period is checked by callers that know the time: hardware
//! refuses to boot an image with an expired one.

use std::fmt;
use std::time::Duration;

use p384::ecdsa::VerifyingKey;
use p384::pkcs8::DecodePublicKey;
use serde::Serialize;
use x509_cert::der::{DateTime, Decode, Encode, pem};

/// The delimiters of a certificate in PEM.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate with a key that can sign an image.
#[derive(Clone, Debug)]
pub struct Certificate {
    pem: String,
    der: Vec<u8>,
    subject: String,
    issuer: String,
    validity: Validity,
    key: VerifyingKey,
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Validity {
    /// From this second.
    pub not_before: u64,
    /// To this second.
    pub not_after: u64,
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = |seconds| {
            let date = DateTime::from_unix_duration(Duration::from_secs(seconds));
            // A certificate has four digits for the year, so every date in one can be formatted.
            date.map_or_else(|_| format!("second {seconds} since 1970"), |date| date.to_string())
        };
        write!(f, "from {} to {}", date(self.not_before), date(self.not_after))
    }
}

impl Certificate {
    /// Reads the first certificate of a PEM text. Text around it, a chain or a description, is ignored.
    pub(crate) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let begin = text.find(BEGIN).ok_or("there is no PEM certificate")?;
        let block = text.get(begin..).unwrap_or_default();
        let end = block.find(END).ok_or("the PEM certificate is truncated")?;
        let block = block.get(..end + END.len()).unwrap_or_default();
        let (_, der) = pem::decode_vec(block.as_bytes()).map_err(|_| "the certificate is not valid PEM")?;
        Self::from_der(format!("{block}\n"), der)
    }

    fn from_der(pem: String, der: Vec<u8>) -> Result<Self, &'static str> {
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| "the certificate is not X.509")?;
        let body = parsed.tbs_certificate();
        let key = body.subject_public_key_info().to_der().ok();
        let key = key.and_then(|key| VerifyingKey::from_public_key_der(&key).ok());
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        Ok(Self {
            subject: body.subject().to_string(),
            issuer: body.issuer().to_string(),
            validity: Validity {
                not_before: seconds(body.validity().not_before),
                not_after: seconds(body.validity().not_after),
            },
            key: key.ok_or("the certificate's key is not on the curve P-384")?,
            pem,
            der,
        })
    }

    /// The DER form, whose digest is PCR8.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its subject, as it states.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Its issuer, as it states.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// When it is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The PEM form as stored in the file.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn key(&self) -> &VerifyingKey {
        &self.key
    }
}
