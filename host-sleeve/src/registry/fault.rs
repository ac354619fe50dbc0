//! Why a registry did not give what was asked for.
//!
//! Its law: the words say whose turn it is, and never hold a password or a token.

use std::io;
use std::path::PathBuf;

use cloister_image::digest::Digest;

use crate::error::Error;

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
    /// It has had enough of this host.
    #[error("{registry} has been asked too often")]
    TooMany {
        /// Its name.
        registry: String,
    },
    /// It answers with something else.
    #[error("{registry} answers with status {status}{}", said(.message))]
    Status {
        /// Its name.
        registry: String,
        /// The status.
        status: u16,
        /// What it says about it.
        message: String,
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
            Self::TooMany { .. } => Error::host(what).hint("wait, or sign in with `docker login`"),
            Self::NoRoots => {
                Error::host(what).hint("apt install ca-certificates, or name a file in SSL_CERT_FILE")
            }
            Self::File { .. } | Self::Helper { .. } => Error::operator(what),
            Self::Cache { .. } => {
                Error::host(what).hint("free some space there, or point CLOISTER_CACHE to another disk")
            }
            Self::Status { .. } | Self::Protocol { .. } | Self::Digest { .. } | Self::TooLong { .. } => {
                Error::author(what).hint("ask whoever runs the registry")
            }
        }
        .because(self)
    }

    /// Whether asking again may help: the connection broke after it had brought something.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Network { .. })
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
