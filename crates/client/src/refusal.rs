//! Why a connection was refused.
//!
//! Invariant: a refusal names the check that failed, also where rustls prints it.

use std::error::Error;
use std::fmt;
use std::io;

use cloister_evidence::Verdict;
use cloister_evidence::binding::BindingError;
use cloister_evidence::binding::certificate::CarriedError;
use cloister_evidence::snp::table::TableError;
use rustls::{CertificateError, OtherError};

/// Why the other end was refused. It is not the enclave that was required, or an attacker is between; or the caller has not passed what
/// its evidence is verified with ([`Self::Missing`]).
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate does not have the form of an enclave's.
    #[error("the certificate is not one of an enclave: {0}")]
    Certificate(&'static str),
    /// The extension is malformed.
    #[error(transparent)]
    Extension(#[from] CarriedError),
    /// The evidence is of a platform for which the caller requires nothing. The text is the beginning of the name that
    /// the server stated.
    #[error("the requirements accept no evidence of the platform `{0}`")]
    Platform(String),
    /// The caller has not passed this.
    #[error("the evidence cannot be verified without {0}")]
    Missing(&'static str),
    /// The host's table of certificates is malformed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The required log is not one of an enclave.
    #[error("the required event log does not begin with the end of the boot")]
    Log,
    /// Nonce and key cannot be bound.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// A check of the evidence failed. The verdict has all checks.
    #[error("the evidence is refused: {}", failure(.0))]
    Evidence(Verdict),
    /// The certificate has another key than the one that was verified before.
    #[error("the certificate has another key than the one that was verified")]
    Key,
}

impl Refusal {
    /// The refusal in an error of rustls, or in one of a stream over it.
    #[must_use]
    pub fn in_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let error = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref()?.downcast_ref(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        match error? {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref()
            }
            _ => None,
        }
    }

    /// The verdict with the check that failed, if it is about the evidence.
    #[must_use]
    pub const fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Evidence(verdict) => Some(verdict),
            _ => None,
        }
    }
}

/// The first failed check with its reason, without control characters.
fn failure(verdict: &Verdict) -> String {
    let Some(check) = verdict.failure() else { return "no check failed".to_owned() };
    let reason: String = check.outcome.text().chars().filter(|c| !c.is_control()).collect();
    format!("{}: {reason}", check.name)
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(refusal))))
    }
}

/// The sentence, because rustls prints the error of a verifier in this form.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
