//! A service killed by a signal ends the enclave, and the command's exit code is the one a shell would report.

use std::process::ExitCode;

use rustix::process::{Signal, getpid, kill_process};

use crate::scenario::expect_in;
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario { name: "signal_death_is_128_plus_the_signal", host, guest };

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot("{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    let ended = web.finish()?;
    ended.expect_code(137)?;
    expect_in(&ended.stderr, "SIGKILL", "the reason on stderr")
}

fn guest(_args: &[String]) -> ExitCode {
    // The process dies in this call; the codes are for a kernel that does not send the signal.
    if kill_process(getpid(), Signal::KILL).is_ok() { ExitCode::from(3) } else { ExitCode::from(4) }
}
