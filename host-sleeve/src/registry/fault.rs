//! Why a registry did not give what was asked for.
//!
//! Its law: the words say whose turn it is, and never hold a password or a token.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_image::digest::Digest;
use ureq::http::StatusCode;

use crate::error::Error;
use crate::values::show_duration;

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryFault {
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
    #[error("{registry} answers with status {}{}", .status.as_u16(), said(.message))]
    Status {
        /// Its name.
        registry: String,
        /// The status.
        status: StatusCode,
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
    /// The error to show, under the sentence that says what could not be done.
    pub(super) fn told(self, what: String) -> Error {
        match &self {
            Self::Network { .. } | Self::Broken { .. } => {
                Error::host(what).hint("look at the network; a proxy is taken from HTTPS_PROXY and NO_PROXY")
            }
            Self::Missing { .. } => Error::operator(what).hint("look at the spelling, the tag or the digest"),
            Self::Denied { known: false, .. } => Error::operator(what)
                .hint("sign in with `docker login` or `podman login`, or look at the spelling"),
            Self::Denied { known: true, .. } => {
                Error::operator(what).hint("sign in again, or ask for the right to pull it")
            }
            Self::TooMany { .. } => Error::host(what)
                .hint("wait, or sign in with `docker login`: limits are higher for users it knows"),
            Self::NoRoots => {
                Error::host(what).hint("apt install ca-certificates, or name a file in SSL_CERT_FILE")
            }
            Self::File { .. } => {
                Error::operator(what).hint("mend that file, or write it anew with `docker login`")
            }
            Self::Helper { helper, .. } => Error::operator(what)
                .hint(format!("run `docker-credential-{helper} get` by hand; it reads the registry's name")),
            Self::Stopped => Error::interrupted(what),
            Self::Cache { .. } => {
                Error::host(what).hint("free some space there, or point CLOISTER_CACHE to another disk")
            }
            Self::Status { status, .. } if is_passing(*status) => {
                Error::host(what).hint("the registry has trouble of its own: try again later")
            }
            Self::Status { .. } | Self::Protocol { .. } | Self::Digest { .. } | Self::TooLong { .. } => {
                Error::author(what).hint("ask whoever runs the registry")
            }
        }
        .because(self)
    }

    /// Whether asking again may help.
    pub(super) fn is_passing(&self) -> bool {
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

/// Whether a status may be another one a little later.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
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
    time.map(|time| format!(", and asks to wait for {}", show_duration(*time))).unwrap_or_default()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
