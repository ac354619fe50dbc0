//! The gateway's program for stories: what ramdisk 1 has as `/sbin/gateway`, built beside the tests that start it.
//!
//! Invariant: it only calls that program's entry point.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cloister_gateway::program::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "gateway: {error:?}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
