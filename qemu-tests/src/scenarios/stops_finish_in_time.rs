//! A stop sends a signal, waits as long as the manifest says, and then kills.

use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, catch_number, print};
use crate::scenario::expect_in;
use crate::{Lab, Outcome, Scenario};

/// A service that obeys.
pub(super) const OBEDIENT: Scenario = Scenario {
    name: "a_service_is_stopped_by_the_signal_its_manifest_names_realtime_ones_too",
    host: obedient,
    guest: obey,
};

/// A service that does not.
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
    expect_in(&ended.stdout, "got signal 3\n", "the service's last line")?;
    expect_in(&ended.stdout, "got signal 37\n", "the last line of the service with a realtime signal")
}

fn stubborn(lab: &mut Lab) -> Outcome {
    let manifest =
        "{version: 1, services: {web: {command: [PROBE], stop_timeout: 500ms, ready: {log: here}}}}";
    let mut web = lab.boot(manifest, &[])?;
    web.wait_ready()?;
    web.stop()?.expect_code(137)
}

fn obey(args: &[String]) -> ExitCode {
    let number = args.first().and_then(|number| number.parse().ok()).unwrap_or_default();
    let result = catch_number(number).and_then(|mut caught| {
        print(b"here\n")?;
        caught.wait()?;
        print(format!("got signal {number}\n").as_bytes())
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ignore(_args: &[String]) -> ExitCode {
    // A caught signal that nothing reads is ignored.
    let result = catch(Signal::TERM).and_then(|_ignored| {
        let mut never = catch(Signal::USR1)?;
        print(b"here\n")?;
        never.wait()
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
