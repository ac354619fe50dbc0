//! A request to a security module, and what comes of it.
//!
//! Invariant: it does not matter how the bytes reach the module.

use std::io;
use std::time::Duration;

use cloister_nsm::{Claims, NsmError};

/// Time limit for a request. The Nitro Security Module answers in some milliseconds; with every client waiting, the
/// last one's turn comes after less than a second. A device that hangs is reported after this time.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A request to the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A signed document with these fields.
    Attest { user_data: Option<Vec<u8>>, nonce: Option<Vec<u8>>, public_key: Option<Vec<u8>> },
    /// Random bytes: as many as the module returns at once.
    Random,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The module refused it, or failed.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// There is none that could be used.
    #[error("{0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("the security module did not respond within {} s", REQUEST_TIME.as_secs())]
    TimedOut,
}

/// What the module returned.
pub(crate) type Answer = Result<Vec<u8>, ModuleError>;

/// Sends a request to a module.
pub(crate) fn answer<X>(module: &cloister_nsm::Module<X>, request: &Request) -> Result<Vec<u8>, NsmError>
where
    X: Fn(&[u8]) -> io::Result<Vec<u8>>,
{
    match request {
        Request::Attest { user_data, nonce, public_key } => module.attest(Claims {
            user_data: user_data.as_deref(),
            nonce: nonce.as_deref(),
            public_key: public_key.as_deref(),
        }),
        Request::Random => module.random(),
    }
}
