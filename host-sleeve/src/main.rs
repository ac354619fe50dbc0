//! The program `host-sleeve`: calls its library, nothing more.

use std::process::ExitCode;

fn main() -> ExitCode {
    host_sleeve::run()
}
