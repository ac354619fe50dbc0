//! A request to the security module, and what comes of it.
//!
//! Invariant: it does not matter how the bytes reach the module.

use std::time::Duration;

use cloister_binding::eventlog::Value;
use cloister_binding::{BindingError, Bound};
use cloister_nsm::{NsmError, Pcr};

use crate::events::{Snapshot, Unrecorded};

/// Time limit for a request. The Nitro Security Module answers in some milliseconds; with every client waiting, the
/// last one's turn comes after less than a second. A device that hangs is reported after this time.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A request to the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A signed document with these fields.
    Attest(Fields),
    /// A signed document that binds these values and the event log.
    Evidence(Values),
    /// Random bytes: as many as the module returns at once.
    Random,
    /// The event log.
    Log,
    /// The registers' values.
    Registers,
    /// Nothing: whether evidence could be requested.
    Ready,
    /// Record an event of a service.
    Extend {
        /// The service.
        service: String,
        /// The event's label.
        label: String,
        /// Its data.
        data: Vec<u8>,
    },
    /// Record nothing more.
    Lock {
        /// The service that requests it.
        service: String,
    },
}

/// The fields of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
}

/// What evidence binds, besides the event log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) nonce: Vec<u8>,
    /// Empty if there is none.
    pub(crate) public_key: Vec<u8>,
    pub(crate) user_data: Vec<u8>,
}

/// What a request resulted in.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A document.
    Document(Vec<u8>),
    /// A document, and the event log that it binds.
    Evidence(Vec<u8>, Snapshot),
    /// Random bytes.
    Random(Vec<u8>),
    /// The event log.
    Log(Snapshot),
    /// Registers with their numbers.
    Registers(Vec<(u16, Pcr)>),
    /// An event was recorded.
    Recorded {
        /// Its position in the log.
        position: usize,
        /// The head of the log with it.
        head: Value,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The module refused it, or failed.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// The values cannot be bound.
    #[error(transparent)]
    Values(#[from] BindingError),
    /// The event was not recorded.
    #[error(transparent)]
    Unrecorded(#[from] Unrecorded),
    /// There is none that could be used.
    #[error("{0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("the security module did not respond within {} s", REQUEST_TIME.as_secs())]
    TimedOut,
}

/// What the module returned.
pub(crate) type Answer = Result<Reply, ModuleError>;

impl Values {
    /// The document's fields that bind these values and a log with this head.
    ///
    /// # Errors
    /// A value is outside its limits.
    pub(crate) fn fields(&self, events: &Value) -> Result<Fields, BindingError> {
        let Self { nonce, public_key, user_data } = self;
        let report_data = Bound { nonce, public_key, events, user_data }.report_data()?;
        Ok(Fields {
            user_data: Some(report_data.to_vec()),
            nonce: Some(nonce.clone()),
            public_key: Some(public_key.clone()).filter(|key| !key.is_empty()),
        })
    }
}
