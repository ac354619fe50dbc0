//! A service is ready when its check succeeds, not before, and is killed when its liveness check has failed often enough.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::guest::{attempts, catch, notify, print, wait_for_file};
use crate::scenario::{expect, expect_eq};
use crate::{Lab, Outcome, Running, Scenario, Shared};

/// Each kind of readiness check.
pub(super) const CHECKS: Shared = Shared {
    name: "services_become_ready_by_port_request_file_output_or_notification",
    services: CHECKED,
    control: &[],
    host: checks,
    guest: becoming,
};

/// Many services whose first action is to report that they are ready.
pub(super) const AT_ONCE: Scenario = Scenario {
    name: "forty_services_that_notify_readiness_first_become_ready",
    host: at_once,
    guest: becoming,
};

/// Services that become unhealthy.
pub(super) const LIVENESS: Shared = Shared {
    name: "a_service_whose_checks_fail_repeatedly_is_killed_and_restarted",
    services: LIVING,
    control: &[],
    host: liveness,
    guest: living,
};

/// Detects a service that became ready too early: the jobs that wait for a service run when it is ready, and none can be
/// ready before this file exists.
const GO: &str = "/var/go";

/// Requests that the first service refuses before it is ready.
const NOT_YET: usize = 3;

const CHECKED: &str = "
  http: {command: [PROBE, http], ready: {http: {port: 7001, path: /ready}}}
  liar: {command: [PROBE, liar], ready: notify}
  go: {command: [PROBE, go], kind: job, after: [http, liar]}
  tcp: {command: [PROBE, tcp], ready: {tcp: 7002}}
  tcp6: {command: [PROBE, tcp6], ready: {tcp: 7004}}
  file: {command: [PROBE, file], ready: {file: /var/up}}
  log: {command: [PROBE, log], ready: {log: all is well}}
  notify: {command: [PROBE, notify], ready: notify}
  after-tcp: {command: [PROBE, after, tcp], kind: job, after: [tcp]}
  after-file: {command: [PROBE, after, file], kind: job, after: [file]}
  after-log: {command: [PROBE, after, log], kind: job, after: [log]}
  after-notify: {command: [PROBE, after, notify], kind: job, after: [notify]}
  never: {command: [PROBE, idle], ready: {tcp: 7009}, start_timeout: 300ms, restart: never}
";

fn checks(web: &Running) -> Outcome {
    for name in ["after-tcp", "after-file", "after-log", "after-notify"] {
        web.wait_service(name, "done")?;
    }
    web.wait_service("never", "failed")?;
    for name in ["http", "liar", "tcp", "tcp6", "file", "log", "notify"] {
        expect_eq(&crate::lab::phase(&web.service(name)?), &"ready", name)?;
    }
    let text = web.service("notify")?;
    expect_eq(&text.get("text"), &Some(&"serving since just now".into()), "the service's status text")?;
    expect_eq(&web.stdout().matches("answers 503").count(), &NOT_YET, "requests before it was ready")?;
    web.wait_stderr("never: not ready within 300 ms (waited for TCP port 7009")
}

/// Services of [`AT_ONCE`]: so many that init and the supervisor have a queue of starts and of notifications at the same time.
const MANY: usize = 40;

fn at_once(lab: &mut Lab) -> Outcome {
    let fields = "{command: [PROBE, first-act], ready: notify, start_timeout: 30s, restart: never}";
    let services: Vec<String> = (0..MANY).map(|number| format!("  s{number}: {fields}\n")).collect();
    let manifest = format!("version: 1\nservices:\n{}", services.concat());
    let mut web = lab.boot(&manifest, &["--memory", "1GiB"])?;
    web.wait_ready()?;
    web.stop().map(drop)
}

fn becoming(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["http"] => answer_at_last(),
        // It notifies for itself alone: the kernel reports the cgroup of the sender.
        ["tcp6"] => TcpListener::bind(("::1", 7004)).and_then(|_listener| idle()),
        ["first-act"] => notify("READY=1").and_then(|()| idle()),
        ["liar"] => notify("READY=1\n").and_then(|()| idle()),
        ["go"] => std::fs::write(GO, ""),
        ["after", name] => in_time(name),
        ["child"] => notify("READY=1\nSTATUS=serving since just now").and_then(|()| idle()),
        ["idle"] => idle(),
        [role] => early(role).and_then(|()| wait_for_file(GO)).and_then(|()| late(role)),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

/// What looks like readiness and is not.
fn early(role: &str) -> std::io::Result<()> {
    match role {
        "tcp" => TcpListener::bind(("127.0.0.1", 7012)).map(drop),
        "file" => std::fs::write("/var/upper", ""),
        "log" => print(b"all is we"),
        _ => notify("READY=0\nSTATUS=waiting\nNOREADY=1"),
    }
}

fn late(role: &str) -> std::io::Result<()> {
    match role {
        "tcp" => {
            let _listener = TcpListener::bind(("127.0.0.1", 7002))?;
            idle()
        }
        "file" => std::fs::write("/var/up", "").and_then(|()| idle()),
        "log" => print(b"ll").and_then(|()| idle()),
        // A child of the service may notify for it.
        _ => {
            let _child = Command::new("/proc/self/exe").args([CHECKS.name, "child"]).spawn()?;
            idle()
        }
    }
}

fn in_time(name: &str) -> std::io::Result<()> {
    if std::fs::exists(GO)? {
        return Ok(());
    }
    print(format!("{name} was ready too early\n").as_bytes())?;
    Err(std::io::ErrorKind::NotFound.into())
}

/// Runs until it is asked to stop.
fn idle() -> std::io::Result<()> {
    catch(Signal::TERM)?.wait()
}

fn answer_at_last() -> std::io::Result<()> {
    answer_in_turn(7001, |count| if count < NOT_YET { "503 Busy" } else { "204 No Content" })
}

/// Answers the request number N, from 0, with `answer` of N.
fn answer_in_turn(port: u16, answer: impl Fn(usize) -> &'static str) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let mut count = 0usize;
    for client in listener.incoming() {
        // A check that only connects sends no request.
        if client.and_then(|client| answer_one(client, answer(count))).is_ok_and(|asked| asked) {
            count = count.saturating_add(1);
        }
    }
    Ok(())
}

fn answer_one(mut client: TcpStream, answer: &str) -> std::io::Result<bool> {
    let mut request = [0; 1024];
    if client.read(&mut request)? == 0 {
        return Ok(false);
    }
    print(format!("answers {answer}\n").as_bytes())?;
    // In one write: a check reads the first line and closes the connection.
    let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    Ok(true)
}

/// Maximum interval between two notifications of the second service.
const STEP: Duration = Duration::from_millis(50);

/// For how long it reports that it is alive, in its first run.
const ALIVE: Duration = Duration::from_millis(600);

const LIVING: &str = "
  sick:
    command: [PROBE, sick]
    ready: {tcp: 7003}
    live: {http: {port: 7003, path: /health}, interval: 50ms, timeout: 20s, threshold: 3}
    restart: {delay: 1ms}
  dog: {command: [PROBE, dog], ready: notify, live: {watchdog: 500ms, threshold: 2}, restart: {delay: 1ms}}
  leaver: {command: [PROBE, leaver], ready: notify, restart: never}
";

fn liveness(web: &Running) -> Outcome {
    web.wait_service("leaver", "stopping")?;
    web.command(&["service", "signal", "web", "leaver", "USR1"])?.expect_code(0)?;
    let left = web.wait_service("leaver", "done")?;
    expect_eq(&left.get("last_exit"), &Some(&serde_json::json!({"code": 0})), "the exit of the leaver")?;
    web.wait_stdout("sick is well again")?;
    web.wait_stdout("dog is well again")?;
    expect_eq(&crate::lab::phase(&web.service("sick")?), &"ready", "sick, after its recovery")?;
    expect_eq(&web.service("sick")?.get("restarts"), &Some(&1.into()), "restarts of sick")?;
    expect_eq(&web.service("dog")?.get("restarts"), &Some(&2.into()), "restarts of dog")?;
    web.wait_stderr("sick: unhealthy: 3 consecutive liveness checks failed; killing it")?;
    // Once for a missing notification, once at its own request.
    web.wait_stderr_times("dog: unhealthy: 2 consecutive liveness checks failed", 2)?;
    let stdout = web.stdout();
    let before = stdout.split("sick is well again").next().unwrap_or_default();
    let bad = before.matches("answers 500").count();
    // One more may be answered between the verdict and the kill.
    expect(
        matches!(bad, 5 | 6),
        format_args!("expected two tolerated failures and then three in a row; saw {bad} in:\n{before}"),
    )
}

fn living(args: &[String]) -> ExitCode {
    let before = attempts(&format!("/var/{}", args.join("-"))).unwrap_or_default();
    let done = match args.first().map(String::as_str) {
        Some("sick") => sick(before),
        Some("dog") => dog(before),
        Some("leaver") => leave(),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

fn sick(before: usize) -> std::io::Result<()> {
    if before > 0 {
        print(b"sick is well again\n")?;
        return answer_in_turn(7003, |_| "200 OK");
    }
    answer_in_turn(7003, |count| if matches!(count, 0 | 3) { "200 OK" } else { "500 Ill" })
}

/// Stops notifying after a while, then triggers the watchdog, then works.
fn dog(before: usize) -> std::io::Result<()> {
    if before == 2 {
        print(b"dog is well again\n")?;
    }
    notify("READY=1")?;
    let started = Instant::now();
    while before == 2 || (before == 0 && started.elapsed() < ALIVE) {
        notify("WATCHDOG=1")?;
        std::thread::park_timeout(STEP);
    }
    if before == 1 {
        notify("WATCHDOG=trigger\nWATCHDOG=trigger")?;
    }
    catch(Signal::USR2)?.wait()
}

fn leave() -> std::io::Result<()> {
    let mut signal = catch(Signal::USR1)?;
    notify("READY=1")?;
    notify("STOPPING=1")?;
    signal.wait()
}
