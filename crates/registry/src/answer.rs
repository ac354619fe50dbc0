//! The answers of one registry, and what each failure of it means.
//!
//! Its law: every answer is bounded before it is read.

use std::io::Read;
use std::time::SystemTime;

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::fault::RegistryFault;
use super::retry;

/// The longest answer with a token or an error, in bytes. Tokens have some kilobytes.
pub(super) const MAX_ANSWER: u64 = 64 * 1024;

/// A registry, by name.
#[derive(Clone, Debug)]
pub(super) struct Server {
    name: String,
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    message: String,
}

impl Server {
    /// The registry of this name, `host[:port]`.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// An answer of at most `limit` bytes.
    pub(super) fn read(&self, body: Body, limit: u64) -> Result<Vec<u8>, RegistryFault> {
        let mut bytes = Vec::new();
        let mut reader = body.into_reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|source| self.broken(source))?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length <= limit => Ok(bytes),
            _ => Err(RegistryFault::TooLong { limit }),
        }
    }

    /// What an answer means that is no success, whoever is signed in.
    pub(super) fn refused(&self, response: Response<Body>) -> RegistryFault {
        let registry = self.name.clone();
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => RegistryFault::Missing { registry },
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = retry::retry_after(response.headers(), SystemTime::now());
                RegistryFault::TooMany { registry, retry_after }
            }
            _ => {
                let retry_after = retry::retry_after(response.headers(), SystemTime::now());
                let message = self.complaint(response.into_body());
                RegistryFault::Status { registry, status: status.as_u16(), message, retry_after }
            }
        }
    }

    /// What a registry says about an error, if it says it as the specification has it.
    fn complaint(&self, body: Body) -> String {
        let bytes = self.read(body, MAX_ANSWER).unwrap_or_default();
        let complaint: Complaint = serde_json::from_slice(&bytes).unwrap_or_default();
        complaint.errors.first().map(|reason| reason.message.chars().take(200).collect()).unwrap_or_default()
    }

    /// The fault of a connection that broke while an answer came.
    pub(super) fn broken(&self, source: std::io::Error) -> RegistryFault {
        RegistryFault::Broken { registry: self.name.clone(), source }
    }

    pub(super) fn denied(&self, known: bool) -> RegistryFault {
        RegistryFault::Denied { registry: self.name.clone(), known }
    }

    pub(super) fn network(&self, source: ureq::Error) -> RegistryFault {
        RegistryFault::Network { registry: self.name.clone(), source }
    }

    pub(super) fn protocol(&self, what: &'static str) -> RegistryFault {
        RegistryFault::Protocol { registry: self.name.clone(), what }
    }
}
