//! A service that ends by itself ends the enclave, and its exit code is the command's.

use std::process::ExitCode;

use crate::{Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario = Scenario { name: "exit_code_reaches_the_caller", host, guest };

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot("{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    web.finish()?.expect_code(42)
}

fn guest(_words: &[String]) -> ExitCode {
    ExitCode::from(42)
}
