//! A stop asks, waits as long as the manifest says, and then insists.

use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, catch_number, say};
use crate::story::expect_in;
use crate::{Lab, Outcome, Scenario};

/// The story of a service that does as it is told.
pub(super) const OBEDIENT: Scenario = Scenario {
    name: "a_service_is_stopped_by_the_signal_its_manifest_names_realtime_ones_too",
    host: obedient,
    guest: obey,
};

/// The story of one that does not.
pub(super) const STUBBORN: Scenario = Scenario {
    name: "a_service_that_ignores_its_stop_signal_is_killed_at_its_deadline",
    host: stubborn,
    guest: ignore,
};

fn obedient(lab: &mut Lab) -> Outcome {
    let manifest = "
version: 1
services:
  # 37 is SIGRTMIN+3 where SIGRTMIN is 34, as in glibc: what service managers send to the first process of a container.
  web: {command: [PROBE, '3'], stop_signal: SIGQUIT, ready: {log: here}, critical: true}
  realtime: {command: [PROBE, '37'], stop_signal: SIGRTMIN+3, ready: {log: here}}
";
    let mut web = lab.boot(manifest, &[])?;
    web.wait_ready()?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "got signal 3\n", "what the service said last")?;
    expect_in(&ended.stdout, "got signal 37\n", "what the service with a realtime signal said last")
}

fn stubborn(lab: &mut Lab) -> Outcome {
    let manifest =
        "{version: 1, services: {web: {command: [PROBE], stop_timeout: 500ms, ready: {log: here}}}}";
    let mut web = lab.boot(manifest, &[])?;
    web.wait_ready()?;
    web.stop()?.expect_code(137)
}

fn obey(words: &[String]) -> ExitCode {
    let number = words.first().and_then(|word| word.parse().ok()).unwrap_or_default();
    let lived = catch_number(number).and_then(|mut caught| {
        say(b"here\n")?;
        caught.wait()?;
        say(format!("got signal {number}\n").as_bytes())
    });
    if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ignore(_words: &[String]) -> ExitCode {
    // Caught and never looked at is ignored.
    let lived = catch(Signal::TERM).and_then(|_ignored| {
        let mut never = catch(Signal::USR1)?;
        say(b"here\n")?;
        never.wait()
    });
    if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
