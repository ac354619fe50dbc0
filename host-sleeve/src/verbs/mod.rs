//! One file for each command.
//!
//! Its law: a command turns typed words into calls and results into output; what it does is done elsewhere. Each answers
//! with an exit code.

pub(crate) mod build;
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

use crate::error::{Doing, Result};

/// The exit code of a command that did what it was asked.
pub(crate) const DONE: u8 = 0;

/// Everything but what is blocking happens on this thread: the machine's programs die with it.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.doing(|| "cannot start the event loop".to_owned())?;
    let result = runtime.block_on(work);
    // Blocking work that is still under way, such as reading a large image, is not waited for.
    runtime.shutdown_background();
    result
}
