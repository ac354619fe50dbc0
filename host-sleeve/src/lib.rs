//! `host-sleeve`: builds enclave images, launches them and tells the truth about them.
//!
//! Its law: words in, an exit code out; nothing happens here but the choice of who does it.

mod app;
mod backends;
mod build;
mod cli;
mod client;
mod doctor;
mod error;
mod ingress;
mod install;
mod logbook;
mod metrics;
mod output;
mod registry;
mod signals;
mod sleeve;
mod state;
mod transport;
mod values;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use cloister_wire::exit;

use cli::{Cli, Verb};
use error::Result;

/// Runs the command line of this process, and gives its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return usage(&refused),
    };
    match perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.run_code())
        }
    }
}

/// Has the right command do what was asked.
fn perform(cli: Cli) -> Result<u8> {
    let json = cli.json;
    match cli.verb {
        Verb::Build(asked) => verbs::build::build(asked, json),
        Verb::Diff(asked) => verbs::diff::diff(&asked, json),
        Verb::OsPack(asked) => verbs::os_pack::os_pack(&asked, json),
        Verb::Measure(asked) => verbs::measure::measure(&asked, json),
        Verb::Check(asked) => verbs::build::check(asked, json),
        Verb::Run(asked) => verbs::run::run(asked, json),
        Verb::Ps(asked) => verbs::ps::ps(&asked, json),
        Verb::Logs(asked) => verbs::logs::logs(&asked, json),
        Verb::Stop(asked) => verbs::stop::stop(&asked, json),
        Verb::Prune(asked) => verbs::prune::prune(&asked, json),
        Verb::Rm(asked) => verbs::rm::rm(&asked, json),
        Verb::Inspect(asked) => verbs::inspect::inspect(&asked, json),
        Verb::Service(asked) => verbs::service::service(&asked, json),
        Verb::Stats(asked) => verbs::stats::stats(&asked, json),
        Verb::Metrics(asked) => verbs::metrics::metrics(&asked, json),
        Verb::Doctor => verbs::doctor::doctor(json),
        Verb::Sleeve => verbs::run::sleeve(),
    }
}

/// Help and versions are data; words that make no sense end like every other failure of ours, so that no code of a
/// service can be taken for it.
fn usage(refused: &clap::Error) -> ExitCode {
    // Standard output may be gone; there is nobody left to tell.
    drop(refused.print());
    if refused.use_stderr() { ExitCode::from(exit::OUR_FAILURE) } else { ExitCode::SUCCESS }
}
