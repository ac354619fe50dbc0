//! A service that ends is started again, with pauses that grow, until its burst is used up.

use std::process::ExitCode;

use crate::guest::say;
use crate::story::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story of a service that gets it right in the end.
pub(super) const RECOVERS: Scenario =
    Scenario { name: "a_service_that_fails_is_started_again", host: recovers, guest: third_time };

/// The story of a service that never does.
pub(super) const GIVES_UP: Scenario = Scenario {
    name: "a_service_past_its_burst_has_failed_and_its_code_is_the_enclaves",
    host: gives_up,
    guest: never,
};

fn recovers(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
services:
  web: {command: [PROBE], restart: {policy: on-failure, delay: 50ms}}
",
        &[],
    )?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_eq(&ended.stdout.matches("attempt").count(), &3, "the number of attempts")
}

fn gives_up(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
services:
  web: {command: [PROBE], restart: {policy: always, delay: 10ms, burst: 2}}
",
        &[],
    )?;
    let ended = web.finish()?;
    ended.expect_code(5)?;
    expect_eq(&ended.stdout.matches("never works").count(), &3, "one start and two restarts")?;
    expect_in(&ended.stderr, "web", "the reason names the service")?;
    expect(ended.stderr.contains('5'), format_args!("the reason names the code:\n{}", ended.stderr))
}

fn third_time(_words: &[String]) -> ExitCode {
    // A file of the shared root outlives the process; /tmp is private to it.
    let attempts = std::fs::read("/var/attempts").unwrap_or_default().len().saturating_add(1);
    let noted = std::fs::write("/var/attempts", vec![b'x'; attempts]);
    let said = say(format!("attempt {attempts}\n").as_bytes());
    if attempts == 3 && noted.is_ok() && said.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn never(_words: &[String]) -> ExitCode {
    if say(b"never works\n").is_ok() { ExitCode::from(5) } else { ExitCode::from(6) }
}
