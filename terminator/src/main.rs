//! The terminator's process.
//!
//! Invariant: an error ends the process, with its causes on stderr, which is logged; the supervisor restarts it.

use std::io::{self, Write};
use std::process::ExitCode;

use cloister_wire::causes;

fn main() -> ExitCode {
    match cloister_terminator::program::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("terminator: {}\n", causes::line(&error));
            // If stderr fails, the error cannot be reported.
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
