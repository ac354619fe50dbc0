//! A service that exits ends the enclave, and its exit code becomes that of the command.

use std::process::ExitCode;

use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario { name: "exit_code_reaches_the_caller", host, guest };

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot("{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    web.finish()?.expect_code(42)
}

fn guest(_args: &[String]) -> ExitCode {
    ExitCode::from(42)
}
