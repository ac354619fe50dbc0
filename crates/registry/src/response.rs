//! The responses of one registry, and their errors.
//!
//! Invariant: every response is bounded before it is read.

use std::io::Read;
use std::time::SystemTime;

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::error::RegistryError;
use super::retry;

/// Maximum size of a response with a token or an error, in bytes. Tokens take some kilobytes.
pub(super) const MAX_RESPONSE: u64 = 64 * 1024;

/// A registry, identified by its name.
#[derive(Clone, Debug)]
pub(super) struct Server {
    name: String,
}

#[derive(Default, Deserialize)]
struct ErrorBody {
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

    /// Reads a response of at most `limit` bytes.
    pub(super) fn read(&self, body: Body, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let mut reader = body.into_reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|source| self.broken(source))?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length <= limit => Ok(bytes),
            _ => Err(RegistryError::TooLong { limit }),
        }
    }

    /// The error for an unsuccessful response, regardless of who is signed in.
    pub(super) fn refused(&self, response: Response<Body>) -> RegistryError {
        let registry = self.name.clone();
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => RegistryError::Missing { registry },
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = retry::retry_after(response.headers(), SystemTime::now());
                RegistryError::TooMany { registry, retry_after }
            }
            _ => {
                let retry_after = retry::retry_after(response.headers(), SystemTime::now());
                let message = self.error_message(response.into_body());
                RegistryError::Status { registry, status: status.as_u16(), message, retry_after }
            }
        }
    }

    /// The registry's error message, if it has the format of the specification.
    fn error_message(&self, body: Body) -> String {
        let bytes = self.read(body, MAX_RESPONSE).unwrap_or_default();
        let body: ErrorBody = serde_json::from_slice(&bytes).unwrap_or_default();
        body.errors.first().map(|reason| reason.message.chars().take(200).collect()).unwrap_or_default()
    }

    /// The error for a connection that broke during a response.
    pub(super) fn broken(&self, source: std::io::Error) -> RegistryError {
        RegistryError::Broken { registry: self.name.clone(), source }
    }

    pub(super) fn denied(&self, known: bool) -> RegistryError {
        RegistryError::Denied { registry: self.name.clone(), known }
    }

    pub(super) fn network(&self, source: ureq::Error) -> RegistryError {
        RegistryError::Network { registry: self.name.clone(), source }
    }

    pub(super) fn protocol(&self, what: &'static str) -> RegistryError {
        RegistryError::Protocol { registry: self.name.clone(), what }
    }
}
