//! One file for each command.
//!
//! Its law: a command turns typed words into calls and results into output; what it does is done elsewhere. Each answers
//! with an exit code.

mod build;
mod diff;
mod doctor;
mod eif;
mod follow;
mod inspect;
mod logs;
mod measure;
mod metrics;
mod os_pack;
mod prune;
mod ps;
mod rm;
mod run;
mod service;
mod stats;
mod stop;

use serde::Serialize;

use crate::cli::{Cli, Verb};
use crate::error::{Doing, Result};

/// The exit code of a command that did what it was asked.
pub(crate) const DONE: u8 = 0;

/// Does what was asked.
pub(crate) fn perform(cli: Cli) -> Result<u8> {
    let json = cli.json;
    match cli.verb {
        Verb::Build(asked) => build::build(asked, json),
        Verb::Diff(asked) => diff::diff(&asked, json),
        Verb::OsPack(asked) => os_pack::os_pack(&asked, json),
        Verb::Measure(asked) => measure::measure(&asked, json),
        Verb::Check(asked) => build::check(asked, json),
        Verb::Run(asked) => run::run(asked, json),
        Verb::Ps(asked) => ps::ps(&asked, json),
        Verb::Logs(asked) => logs::logs(&asked, json),
        Verb::Stop(asked) => stop::stop(&asked, json),
        Verb::Prune(asked) => prune::prune(&asked, json),
        Verb::Rm(asked) => rm::rm(&asked, json),
        Verb::Inspect(asked) => inspect::inspect(&asked, json),
        Verb::Service(asked) => service::service(&asked, json),
        Verb::Stats(asked) => stats::stats(&asked, json),
        Verb::Metrics(asked) => metrics::metrics(&asked, json),
        Verb::Doctor => doctor::doctor(json),
        Verb::Sleeve => run::sleeve(),
    }
}

/// Everything but what is blocking happens on this thread: the machine's programs die with it.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.doing(|| "cannot start the event loop".to_owned())?;
    let result = runtime.block_on(work);
    // Blocking work that is still under way, such as reading a large image, is not waited for.
    runtime.shutdown_background();
    result
}

/// A value of the wire in its own words.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default().replace(['"', '{', '}'], "")
}
