//! A service that exits is restarted with growing delays until its burst is exhausted; whether the enclave then terminates is up
//! to the manifest.

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;

use crate::guest::{attempts, catch, print};
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Running, Scenario, Shared};

/// A service that succeeds in the end.
pub(super) const RECOVERS: Shared = Shared {
    name: "a_failed_service_is_restarted",
    services: "  unlucky: {command: [PROBE], restart: {policy: on-failure, delay: 50ms}}",
    control: &[],
    host: recovers,
    guest: third_time,
};

/// A service that never does.
pub(super) const EXHAUSTED: Scenario = Scenario {
    name: "a_service_past_its_burst_fails_and_the_enclave_has_its_exit_code",
    host: exhausted,
    guest: never,
};

/// The restart delays.
pub(super) const PAUSES: Scenario = Scenario {
    name: "restart_delays_double_and_reset_after_a_stable_time",
    host: pauses,
    guest: stable_once,
};

/// Critical and other services.
pub(super) const CRITICAL: Scenario = Scenario {
    name: "only_a_critical_service_ends_the_enclave_with_its_exit_code",
    host: critical,
    guest: important,
};

/// How long the service of the delays runs in its fourth run: longer than `stable`, however busy the host is.
const STABLE: Duration = Duration::from_millis(600);

fn recovers(web: &Running) -> Outcome {
    let ended = web.wait_service("unlucky", "done")?;
    expect_eq(&ended.get("last_exit"), &Some(&serde_json::json!({"code": 0})), "its final exit")?;
    web.wait_stdout("attempt 3\n")?;
    expect_eq(&web.stdout().matches("attempt").count(), &3, "the number of attempts")
}

fn exhausted(lab: &mut Lab) -> Outcome {
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

fn third_time(_args: &[String]) -> ExitCode {
    let attempt = attempts("/var/attempts").unwrap_or_default().saturating_add(1);
    let printed = print(format!("attempt {attempt}\n").as_bytes());
    if attempt == 3 && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn never(_args: &[String]) -> ExitCode {
    if print(b"never works\n").is_ok() { ExitCode::from(5) } else { ExitCode::from(6) }
}

fn pauses(lab: &mut Lab) -> Outcome {
    let manifest = "{version: 1, services: {web: {command: [PROBE], restart: {delay: 200ms, max_delay: 700ms, stable: 500ms, burst: 4}}}}";
    let ended = lab.boot(manifest, &[])?.finish()?;
    ended.expect_code(0)?;
    // The logged delays: each with a random reduction of a quarter at most.
    let delays: Vec<u64> = ended.stderr.lines().filter_map(pause_in).collect();
    expect_eq(&delays.len(), &4, "restarts")?;
    for (pause, longest) in delays.iter().zip([200, 400, 700, 200]) {
        let right = (longest - longest / 4..=longest).contains(pause);
        expect(right, format_args!("{delays:?}: {pause} ms is not {longest} ms less up to a quarter"))?;
    }
    // The observed delays: each run begins no earlier than its delay after the previous run's end.
    let times: Vec<u64> = ended.stdout.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    expect_eq(&times.len(), &10, "the begin and the end of five runs")?;
    for ((before, after), pause) in
        times.iter().skip(1).step_by(2).zip(times.iter().skip(2).step_by(2)).zip(&delays)
    {
        let waited = after.saturating_sub(*before);
        expect(waited.saturating_add(CLOCK_STEP) >= *pause, format_args!("waited {waited} ms of {pause}"))?;
    }
    Ok(())
}

/// The step of `/proc/uptime` in milliseconds.
const CLOCK_STEP: u64 = 10;

/// `… restarting in 150 ms after …`
fn pause_in(line: &str) -> Option<u64> {
    line.split("restarting in ").nth(1)?.split(' ').next()?.parse().ok()
}

fn stable_once(_args: &[String]) -> ExitCode {
    let run = attempts("/var/runs").unwrap_or_default();
    let began = uptime_ms();
    if run == 3 {
        std::thread::park_timeout(STABLE);
    }
    let printed = began.and_then(|began| print(format!("{began} {}\n", uptime_ms()?).as_bytes()));
    if run == 4 && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Milliseconds since boot.
fn uptime_ms() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let digits: String = text.split(' ').next().unwrap_or_default().replace('.', "");
    digits.parse::<u64>().map(|hundredths| hundredths.saturating_mul(10)).map_err(std::io::Error::other)
}

fn critical(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
control: [signal]
services:
  main: {command: [PROBE, main, 7], ready: {log: main is here}, critical: true, restart: never}
  other: {command: [PROBE, other, 0], ready: {log: other is here}}
  helper: {command: [PROBE], after: [main], restart: {delay: 1ms, burst: 1}}
",
        &[],
    )?;
    web.wait_service("helper", "failed")?;
    let seen = web.wait_state("degraded")?;
    let why = seen.pointer("/status/why").and_then(serde_json::Value::as_str).unwrap_or_default();
    expect_in(why, "helper has failed", "the reason for degraded")?;
    expect_eq(
        &crate::lab::phase(&web.service("main")?),
        &"ready",
        "the critical service after another failed",
    )?;
    web.command(&["service", "signal", "web", "main", "TERM"])?.expect_code(0)?;
    let ended = web.finish()?;
    ended.expect_code(7)?;
    expect_in(&ended.stderr, "stopping: main ended: exit code 7", "the cause")?;
    expect_in(&ended.stdout, "other was asked to stop", "the stop of the others")?;
    let order = ended.stdout.find("main was asked").zip(ended.stdout.find("other was asked"));
    expect(
        order.is_some_and(|(main, other)| main < other),
        format_args!("the order of exits:\n{}", ended.stdout),
    )
}

fn important(args: &[String]) -> ExitCode {
    let [name, code] = args else { return ExitCode::from(3) };
    let result = catch(Signal::TERM).and_then(|mut term| {
        print(format!("{name} is here\n").as_bytes())?;
        term.wait()?;
        print(format!("{name} was asked to stop\n").as_bytes())
    });
    result.ok().and_then(|()| code.parse::<u8>().ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
