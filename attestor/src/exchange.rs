//! A request to what provides evidence, and what comes of it.
//!
//! Invariant: it does not matter how the bytes reach it.

use std::time::Duration;

use cloister_binding::eventlog::Value;
use cloister_binding::{BindingError, Bound, REPORT_DATA};
use cloister_nsm::{NsmError, Pcr};
use cloister_sys::tsm::TsmError;

use crate::events::{Snapshot, Unrecorded};

/// Time limit for a request, its turn included. The Nitro Security Module answers in some milliseconds: with every client
/// waiting, the last one's turn comes after less than a second. A TDX quote takes about a second: a party gets one per rotation
/// ([`crate::turns`]), and what cannot be finished in time is refused. A device that hangs is reported after this time, although
/// the driver of TDX waits for 30 s.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Maximum length of the host's certificates in bytes: that of AMD's driver (`SEV_FW_BLOB_MAX_SIZE`). The kernel accepts twice as
/// much, and each client's response contains them.
pub(crate) const CERTIFICATES_LIMIT: usize = 16 * 1024;

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
    /// A document or report, and what a verifier needs with it.
    Evidence(Evidence),
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

/// Evidence that binds values and an event log.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// What the platform signed.
    pub(crate) document: Vec<u8>,
    /// The certificates that the host passes along with a report of SEV-SNP. Empty if there are none.
    pub(crate) certificates: Vec<u8>,
    /// The event log that it binds.
    pub(crate) events: Snapshot,
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
    /// The hardware made no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// This platform does not have it; the text has the alternative.
    #[error("{0}")]
    Unsupported(String),
    /// Requests to this one leave no time for another.
    #[error("busy: too many requests to {0} at once; repeat it later")]
    Busy(&'static str),
    /// This one did not answer in time.
    #[error("{0} did not respond within {limit} s", limit = REQUEST_TIME.as_secs())]
    TimedOut(&'static str),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The driver or the host failed.
    #[error("the hardware made no report")]
    Tsm(#[from] TsmError),
    /// It is a report of other hardware.
    #[error("the kernel's provider of reports is {0:?}, not that of platform {1}")]
    Provider(String, String),
    /// The host passes more along with the report than a client is sent.
    #[error("the host's certificates have {0} bytes, the limit is {CERTIFICATES_LIMIT}")]
    Certificates(usize),
}

/// What the module returned.
pub(crate) type Answer = Result<Reply, ModuleError>;

impl Values {
    /// The document's fields that bind these values and a log with this head.
    ///
    /// # Errors
    /// A value is outside its limits.
    pub(crate) fn fields(&self, events: &Value) -> Result<Fields, BindingError> {
        Ok(Fields {
            user_data: Some(self.report_data(events)?.to_vec()),
            nonce: Some(self.nonce.clone()),
            public_key: Some(self.public_key.clone()).filter(|key| !key.is_empty()),
        })
    }

    /// The report data that binds these values and a log with this head.
    ///
    /// # Errors
    /// A value is outside its limits.
    pub(crate) fn report_data(&self, events: &Value) -> Result<[u8; REPORT_DATA], BindingError> {
        let Self { nonce, public_key, user_data } = self;
        Bound { nonce, public_key, events, user_data }.report_data()
    }
}
