//! The gateway's process.
//!
//! Invariant: an error ends the process, with its causes on stderr, which is logged; the supervisor restarts it.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cloister_gateway::program::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn report(error: &dyn Error) {
    let mut line = format!("gateway: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.push('\n');
    // If stderr fails, the error cannot be reported.
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}
