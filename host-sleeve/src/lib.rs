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

/// Runs the command line of this process, and gives its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return usage(&refused),
    };
    match verbs::perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.run_code())
        }
    }
}

/// Help and versions are data; words that make no sense end like every other failure of ours, so that no code of a
/// service can be taken for it.
fn usage(refused: &clap::Error) -> ExitCode {
    // Standard output may be gone; there is nobody left to tell.
    drop(refused.print());
    if refused.use_stderr() { ExitCode::from(exit::OUR_FAILURE) } else { ExitCode::SUCCESS }
}
