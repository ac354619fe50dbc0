//! The program `host-sleeve`: its library, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    host_sleeve::run()
}
