//! The gateway's program for stories: what ramdisk 1 has as `/sbin/gateway`, built beside the tests that start it.
//!
//! Its law: it is that program and nothing else.

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
