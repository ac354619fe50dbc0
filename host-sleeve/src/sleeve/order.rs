//! What a sleeve is to run, and who is notified of its progress.
//!
//! Invariant: an order is complete and plain data, so that one process can hand it to another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::backends::options::Chosen;
use crate::error::Result;
use crate::state::{EnclaveDir, Record};
use crate::values::Publish;

/// A request to launch an enclave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The enclave image.
    pub(crate) app: PathBuf,
    /// The requested name, if any.
    pub(crate) name: Option<String>,
    /// Whether to take over the name of an enclave that has ended.
    pub(crate) replace: bool,
    /// Whether to delete the enclave's record when it ends.
    pub(crate) rm: bool,
    /// The published ports.
    pub(crate) publish: Vec<Publish>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// The requested memory in bytes, if any.
    pub(crate) memory: Option<u64>,
    /// Time limit for the whole run.
    pub(crate) timeout: Option<Duration>,
    /// Time limit for becoming ready.
    pub(crate) ready_timeout: Option<Duration>,
    /// The name of the requested backend, if any.
    pub(crate) backend: Option<String>,
    /// The backend options that were given.
    pub(crate) options: Chosen,
    /// Address at which metrics are served, if any.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether the console is copied to standard error.
    pub(crate) console: bool,
    /// What the enclave must prove before it is reported as ready, if anything.
    pub(crate) verify: Option<Expected>,
}

/// The measurements that an enclave must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expected {
    /// Those that its own image predicts.
    Prediction,
    /// Those of one of these measurements documents.
    AnyOf(Vec<Document>),
}

/// A measurements document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    /// Its path, for messages.
    pub(crate) name: String,
    /// Its JSON.
    pub(crate) text: String,
}

/// Receives notifications about the progress of a run.
pub(crate) trait Watcher {
    /// The enclave has a name and a directory, and is about to boot.
    fn launching(&mut self, directory: &EnclaveDir, app: &App) -> Result<()>;
    /// The enclave's directory, or a part of it, had been removed by another process and was recreated.
    fn restored(&mut self, directory: &EnclaveDir);
    /// The enclave is ready.
    fn ready(&mut self, record: &Record);
    /// The enclave has become degraded or ready again, or has stopped or resumed responding.
    fn changed(&mut self, record: &Record);
}
