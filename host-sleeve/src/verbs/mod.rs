//! One file for each command.
//!
//! Invariant: a command turns its arguments into calls and the results into output; the work itself is done elsewhere. Each
//! returns an exit code.

mod attested;
pub(crate) mod build;
pub(crate) mod connect;
pub(crate) mod diff;
pub(crate) mod doctor;
mod eif;
mod follow;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod measure;
pub(crate) mod metrics;
pub(crate) mod os_pack;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod verify;
pub(crate) mod virtual_root;

use crate::error::{ErrorContext, Result};

/// The exit code of a successful command.
pub(crate) const DONE: u8 = 0;

/// Everything but blocking work runs on this thread: the kernel kills the machine's programs when this thread exits.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context(|| "cannot start the event loop".to_owned())?;
    let result = runtime.block_on(work);
    // Blocking work in progress, such as reading a large image, is not waited for.
    runtime.shutdown_background();
    result
}
