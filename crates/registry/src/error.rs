//! Errors of pulling from a registry.
//!
//! Invariant: the message shows who has to act, and never contains a password or a token.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_image::digest::Digest;
use cloister_image::oci::OciError;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// An error of the registry or of the cache.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An error in the image that was pulled.
    #[error(transparent)]
    Image(OciError),
}

impl From<OciError> for PullError {
    /// If a document could not be fetched, the image crate passes the registry's error on; it is unwrapped here.
    fn from(error: OciError) -> Self {
        match error {
            OciError::Host { path, source } => match source.downcast::<RegistryError>() {
                Ok(error) => Self::Registry(error),
                Err(source) => Self::Image(OciError::Host { path, source }),
            },
            error => Self::Image(error),
        }
    }
}

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, or the connection broke.
    #[error("cannot reach {registry}")]
    Network {
        /// Its name.
        registry: String,
        /// Why.
        #[source]
        source: ureq::Error,
    },
    /// The connection broke during a response.
    #[error("the connection to {registry} was interrupted")]
    Broken {
        /// Its name.
        registry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The registry has no such image.
    #[error("not found on {registry}")]
    Missing {
        /// Its name.
        registry: String,
    },
    /// The registry requires authentication, or denies access to this user.
    #[error("{registry} denied access to {}", if *.known { "this user" } else { "anonymous users" })]
    Denied {
        /// Its name.
        registry: String,
        /// Whether credentials were sent.
        known: bool,
    },
    /// The registry limits the rate of this host's requests.
    #[error("{registry} limits the rate of requests{}", retry_hint(.retry_after.as_ref()))]
    TooMany {
        /// Its name.
        registry: String,
        /// After which time the request may be repeated.
        retry_after: Option<Duration>,
    },
    /// The registry returned another error.
    #[error("{registry} returned status {status}{}", in_parentheses(.message))]
    Status {
        /// Its name.
        registry: String,
        /// The status.
        status: u16,
        /// Its message.
        message: String,
        /// After which time the request may be repeated.
        retry_after: Option<Duration>,
    },
    /// The response violates the protocol.
    #[error("{registry} violated the registry protocol: {what}")]
    Protocol {
        /// Its name.
        registry: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The received data has another digest than the requested one.
    #[error("the received data has the digest {found}, expected {expected}")]
    Digest {
        /// The requested digest.
        expected: Digest,
        /// The digest of the received data.
        found: Digest,
    },
    /// The received data exceeds its limit.
    #[error("the received data exceeds the limit of {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// No root certificates to verify a registry's certificate.
    #[error("no root certificates found on this host")]
    NoRoots,
    /// A file with certificates or credentials that cannot be used.
    #[error("cannot use {}: {what}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A credential helper returned no credentials.
    #[error("the credential helper {helper} failed: {why}")]
    Helper {
        /// Its name.
        helper: String,
        /// Its error message.
        why: String,
    },
    /// The user has cancelled the pull.
    #[error("the pull was cancelled")]
    Stopped,
    /// The cache cannot be written or read.
    #[error("cannot use {} as a cache", .path.display())]
    Cache {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    /// Whether repeating the request may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::TooMany { .. } => true,
            Self::Network { source, .. } => is_broken(source),
            Self::Status { status, .. } => is_passing(*status),
            _ => false,
        }
    }

    /// The time after which the registry allows the request to be repeated, if it stated one.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another server may provide what this one did not.
    pub(super) fn concerns_server(&self) -> bool {
        !matches!(self, Self::Cache { .. } | Self::NoRoots | Self::File { .. } | Self::Stopped)
    }
}

/// Whether a status is a temporary one (RFC 9110, 15.5 and 15.6; RFC 6585, 4): request timeout, too many requests, internal
/// server error, bad gateway, service unavailable, gateway timeout.
const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a connection that failed this way may succeed next time. If it was refused or the host name is unknown, waiting for
/// seconds does not help.
fn is_broken(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, UnexpectedEof};
    match error {
        ureq::Error::Io(error) => {
            matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted | UnexpectedEof
            )
        }
        _ => false,
    }
}

fn retry_hint(time: Option<&Duration>) -> String {
    time.map(|time| format!("; retry after {}", span(*time))).unwrap_or_default()
}

/// A human-readable time, in at most two units: registries ask for seconds or hours.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn in_parentheses(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
