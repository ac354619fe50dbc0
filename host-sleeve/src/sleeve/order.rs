//! What a sleeve is told to run, and whom it tells how that goes.
//!
//! Its law: an order is complete and plain data, so that one process can give it to another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::backends::options::Chosen;
use crate::error::Result;
use crate::state::{Folder, Record};
use crate::values::Publish;

/// What is to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The enclave image.
    pub(crate) app: PathBuf,
    /// The name, if one was asked for.
    pub(crate) name: Option<String>,
    /// Whether to take the name over from an enclave that has ended.
    pub(crate) replace: bool,
    /// Whether to forget the enclave when it ends.
    pub(crate) rm: bool,
    /// The ports.
    pub(crate) publish: Vec<Publish>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes, if asked for.
    pub(crate) memory: Option<u64>,
    /// A limit for the whole run.
    pub(crate) timeout: Option<Duration>,
    /// A limit until ready.
    pub(crate) ready_timeout: Option<Duration>,
    /// The backend's name, if one was asked for.
    pub(crate) backend: Option<String>,
    /// The options of the backend that were chosen.
    pub(crate) options: Chosen,
    /// Where metrics are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether the console is copied to standard error.
    pub(crate) console: bool,
}

/// Who wants to know how a run goes.
pub(crate) trait Watcher {
    /// The enclave has a name and a folder, and will be booted.
    fn launching(&mut self, folder: &Folder, app: &App) -> Result<()>;
    /// The enclave's folder, or a part of it, was removed from outside, and is there again.
    fn restored(&mut self, folder: &Folder);
    /// It is ready.
    fn ready(&mut self, record: &Record);
    /// It was ready, and now something in it does not serve; or all of it serves again.
    fn changed(&mut self, record: &Record);
}
