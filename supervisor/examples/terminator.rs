//! The terminator's program for stories: what ramdisk 1 has as `/sbin/terminator`, built beside the tests that start it.
//!
//! Invariant: it only calls that program's entry point.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cloister_terminator::program::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "terminator: {error:?}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
