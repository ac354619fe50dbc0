//! Why a registry did not give what was asked for.
//!
//! Its law: the words say whose turn it is, and never hold a password or a token.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_image::digest::Digest;
use cloister_image::oci::OciFault;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullFault {
    /// The registry, or the cache.
    #[error(transparent)]
    Registry(#[from] RegistryFault),
    /// The image that it gave.
    #[error(transparent)]
    Image(OciFault),
}

impl From<OciFault> for PullFault {
    /// Where a document could not be fetched, the registry's own fault came up through the image crate.
    fn from(fault: OciFault) -> Self {
        match fault {
            OciFault::Host { path, source } => match source.downcast::<RegistryFault>() {
                Ok(fault) => Self::Registry(fault),
                Err(source) => Self::Image(OciFault::Host { path, source }),
            },
            fault => Self::Image(fault),
        }
    }
}

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFault {
    /// It cannot be reached, or the connection broke.
    #[error("{registry} cannot be reached")]
    Network {
        /// Its name.
        registry: String,
        /// Why.
        #[source]
        source: ureq::Error,
    },
    /// The connection broke while bytes came.
    #[error("{registry} stopped in the middle of an answer")]
    Broken {
        /// Its name.
        registry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such image there.
    #[error("{registry} does not have it")]
    Missing {
        /// Its name.
        registry: String,
    },
    /// It wants to know who asks, or does not let them.
    #[error("{registry} does not let {} read it", if *.known { "this user" } else { "everybody" })]
    Denied {
        /// Its name.
        registry: String,
        /// Whether credentials were sent.
        known: bool,
    },
    /// It limits this host's requests.
    #[error("{registry} limits how often it may be asked{}", in_time(.retry_after.as_ref()))]
    TooMany {
        /// Its name.
        registry: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// It answers with another error.
    #[error("{registry} answers with status {status}{}", said(.message))]
    Status {
        /// Its name.
        registry: String,
        /// The status.
        status: u16,
        /// Its message.
        message: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// Its answer is not one of the protocol.
    #[error("{registry} does not answer as a registry does: {what}")]
    Protocol {
        /// Its name.
        registry: String,
        /// What is wrong.
        what: &'static str,
    },
    /// What came is not what was asked for.
    #[error("what came has the digest {found}, and {expected} was asked for")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// What came is longer than it may be.
    #[error("what came is longer than the {limit} bytes it may have")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// No certificates to know a registry by.
    #[error("there are no root certificates on this host")]
    NoRoots,
    /// A file with certificates or credentials that cannot be read.
    #[error("{} cannot be understood: {what}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The program that knows the password does not tell.
    #[error("the credential helper {helper} gives nothing: {why}")]
    Helper {
        /// Its name.
        helper: String,
        /// What it said.
        why: String,
    },
    /// The user does not want it any more.
    #[error("the pull was stopped")]
    Stopped,
    /// The cache cannot be written or read.
    #[error("{} cannot be used as a cache", .path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RegistryFault {
    /// Whether asking again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::TooMany { .. } => true,
            Self::Network { source, .. } => is_broken(source),
            Self::Status { status, .. } => is_passing(*status),
            _ => false,
        }
    }

    /// After how long the registry wants to be asked again, where it says so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another server may have what this one did not give.
    pub(super) fn is_the_servers(&self) -> bool {
        !matches!(self, Self::Cache { .. } | Self::NoRoots | Self::File { .. } | Self::Stopped)
    }
}

/// Whether a status may be another one a little later (RFC 9110, 15.5 and 15.6; RFC 6585, 4): request timeout, too many requests,
/// internal server error, bad gateway, service unavailable, gateway timeout.
const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a connection that failed this way may hold the next time. One that is refused, or whose name is unknown, is not
/// repaired by waiting for seconds.
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

fn in_time(time: Option<&Duration>) -> String {
    time.map(|time| format!(", and asks to wait for {}", span(*time))).unwrap_or_default()
}

/// A time to wait for people, in two units at most: registries ask for seconds or hours.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
