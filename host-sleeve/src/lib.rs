//! `host-sleeve`: builds, launches and inspects enclaves.
//!
//! Invariant: arguments in, an exit code out; this file only dispatches to the commands.

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
mod module;
mod output;
mod registry;
mod signals;
mod sleeve;
mod state;
mod transport;
mod values;
mod verbs;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use cloister_wire::exit;

use cli::{Cli, Verb};
use error::Result;

/// Runs the command line of this process and returns its exit code.
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

/// Dispatches to the command.
fn perform(cli: Cli) -> Result<u8> {
    let json = cli.json;
    match cli.verb {
        Verb::Build(args) => verbs::build::build(args, json),
        Verb::Diff(args) => verbs::diff::diff(&args, json),
        Verb::OsPack(args) => verbs::os_pack::os_pack(&args, json),
        Verb::Measure(args) => verbs::measure::measure(&args, json),
        Verb::Verify(args) => verbs::verify::verify(&args, json),
        Verb::Connect(args) => verbs::connect::connect(&args, json),
        Verb::Check(args) => verbs::build::check(args, json),
        Verb::Run(args) => verbs::run::run(args, json),
        Verb::Ps(args) => verbs::ps::ps(&args, json),
        Verb::Logs(args) => verbs::logs::logs(&args, json),
        Verb::Stop(args) => verbs::stop::stop(&args, json),
        Verb::Prune(args) => verbs::prune::prune(&args, json),
        Verb::Rm(args) => verbs::rm::rm(&args, json),
        Verb::Inspect(args) => verbs::inspect::inspect(&args, json),
        Verb::Service(args) => verbs::service::service(&args, json),
        Verb::Stats(args) => verbs::stats::stats(&args, json),
        Verb::Metrics(args) => verbs::metrics::metrics(&args, json),
        Verb::Doctor => verbs::doctor::doctor(json),
        Verb::VirtualRoot(args) => verbs::virtual_root::virtual_root(&args, json),
        Verb::Sleeve => verbs::run::sleeve(),
    }
}

/// Help and versions are data. An invalid command line exits like every other failure of host-sleeve, so that its exit code
/// cannot be mistaken for a service's.
fn usage(refused: &clap::Error) -> ExitCode {
    // The stream may be closed; then there is nowhere to report that.
    drop(refused.print());
    if refused.use_stderr() { ExitCode::from(exit::OUR_FAILURE) } else { ExitCode::SUCCESS }
}
