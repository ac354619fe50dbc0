//! What does not stop PID 1: signals, unknown arguments, and more orphans than it can count.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::process::{Pid, Signal};

use crate::guest::{catch, print, send_from_outside, serve_http};
use crate::lab::{Release, Running};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// Signals.
pub(super) const SIGNALS: Scenario = Scenario {
    name: "init_survives_every_signal_and_three_of_them_stop_in_order",
    host: signals,
    guest: signalling,
};

/// A supervisor that hangs between fork and exec.
pub(super) const HANGS: Scenario = Scenario {
    name: "a_supervisor_that_hangs_before_exec_is_killed_and_restarted",
    host: hangs,
    guest: print_environment,
};

/// The kernel's command line.
pub(super) const ARGUMENTS: Scenario =
    Scenario { name: "unknown_kernel_arguments_reach_no_service", host: arguments, guest: print_environment };

/// A fork bomb.
pub(super) const ORPHANS: Scenario = Scenario {
    name: "a_fork_bomb_of_orphans_stays_within_its_limit_and_is_reaped",
    host: orphans,
    guest: bomb,
};

/// The signals that ask for a stop (docs/init.md): SIGTERM, SIGINT, SIGPWR of signal(7).
const STOPPING: [u8; 3] = [15, 2, 30];

/// `SIGRTMAX`, the last signal (signal(7)).
const LAST: u8 = 64;

fn signals(lab: &mut Lab) -> Outcome {
    let image = lab.image_on(
        &Release::default().with_trial("signals"),
        "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, target: 8080}]}",
    )?;
    for signal in STOPPING {
        let port = lab.free_port()?;
        let mut web = lab.run(&image, &["--replace", "--publish", &format!("{port}:80")])?;
        web.wait_ready()?;
        expect_eq(&web.get(port, "/all")?.body, &"sent 61".to_owned(), "the signals that init ignores")?;
        let inspected = web.inspect()?;
        expect_at(&inspected, "/status/state", "ready")?;
        expect_at(&inspected, "/status/supervisor_restarts", 0)?;
        expect_eq(&web.get(port, &format!("/{signal}"))?.body, &"sent 1".to_owned(), "the last signal")?;
        let ended = web.finish()?;
        ended.expect_code(0)?;
        expect_in(&ended.stdout, "stopped in order", "the service's last line")?;
    }
    Ok(())
}

fn signalling(_args: &[String]) -> ExitCode {
    let Ok(mut stop) = catch(Signal::TERM) else { return ExitCode::FAILURE };
    thread::spawn(|| serve_http(8080, send_to_init));
    let ended = stop.wait().and_then(|()| print(b"stopped in order\n"));
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sends init the signal that `path` names, or all that it ignores, including SIGKILL and SIGSTOP.
fn send_to_init(path: &str) -> String {
    let name = path.trim_start_matches('/');
    let wanted = |signal: &u8| match name {
        "all" => !STOPPING.contains(signal),
        _ => name == signal.to_string(),
    };
    let sent = (1..=LAST).filter(wanted).map(|signal| send_from_outside(Pid::INIT, i32::from(signal)));
    match sent.collect::<std::io::Result<Vec<()>>>() {
        Ok(sent) => format!("sent {}", sent.len()),
        Err(error) => error.to_string(),
    }
}

fn hangs(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_trial("frozen");
    let image =
        lab.image_on(&release, "{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    let mut web = lab.run(&image, &[])?;
    web.finish()?.expect_code(0)?;
    let console = web.command(&["logs", "web", "--console"])?;
    let reason = "program not started within 10 s; retrying";
    expect_eq(&console.stdout.matches(reason).count(), &1, &console.stdout)
}

fn arguments(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_cmdline(
        "single emergency -x --help CLOISTER_WORD=1 LD_PRELOAD=/x.so web.mode=2 --version rescue 3",
    );
    let image = lab.image_on(
        &release,
        "{version: 1, services: {web: {command: [PROBE], env: {A: b}, restart: never}}}",
    )?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "cmdline: ", "the service's command line")?;
    expect_in(&ended.stdout, "CLOISTER_WORD=1", "the kernel's command line, as the service saw it")?;
    expect_in(&ended.stdout, "environment: A=b HOME=", "the service's environment")?;
    let environment = ended.stdout.lines().find(|line| line.starts_with("environment: ")).unwrap_or_default();
    expect(!environment.contains("CLOISTER_WORD") && !environment.contains("LD_PRELOAD"), environment)
}

fn print_environment(_args: &[String]) -> ExitCode {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let environment: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    let printed = print(format!("cmdline: {cmdline}environment: {}\n", environment.join(" ")).as_bytes());
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Maximum number of processes and threads of the bomb: the service and its thread; the rest are orphans.
const PIDS: u32 = 50;

/// Orphans that the bomb creates in total: ten times its maximum.
const ORPHANED: u64 = 500;

/// Where the bomb counts its processes, a byte for each, and the refused forks.
const COUNTS: [&str; 2] = ["/tmp/made", "/tmp/refused"];

fn orphans(lab: &mut Lab) -> Outcome {
    let manifest = "
version: 1
services:
  bomb: {command: [PROBE, serve, '8080'], user: app, limits: {pids: PIDS}, ready: {tcp: 8080}, critical: true}
  calm: {command: [PROBE, serve, '8081'], user: '1001', ready: {tcp: 8081}}
ingress:
  - {port: 80, service: bomb, target: 8080}
  - {port: 81, service: calm, target: 8081}
"
    .replace("PIDS", &PIDS.to_string());
    let (bomb, calm) = (lab.free_port()?, lab.free_port()?);
    let publish = [format!("{bomb}:80"), format!("{calm}:81")];
    let [first, second] = &publish;
    let mut web = lab.boot(&manifest, &["--publish", first, "--publish", second])?;
    web.wait_ready()?;
    expect_eq(&web.get(bomb, "/explode")?.body, &"lit".to_owned(), "the fuse")?;
    let mut most = 0;
    let (made, refused) = web.until("the end of the bomb, with all orphans reaped", || {
        expect_eq(&web.get(calm, "/")?.body, &"calm".to_owned(), "the other service")?;
        let [made, refused, now] = counts(&web, bomb)?;
        most = most.max(now);
        // The service itself and its first process.
        Ok((made >= ORPHANED && now == 2).then_some((made, refused)))
    })?;
    expect(refused > 0, format_args!("{made} processes were created and no fork was refused"))?;
    expect(
        most <= u64::from(PIDS).saturating_add(1),
        format_args!("{most} processes at once, the limit is {PIDS}"),
    )?;
    let inspected = web.inspect()?;
    expect_at(&inspected, "/status/supervisor_restarts", 0)?;
    web.stop()?;
    Ok(())
}

/// The bomb's report: processes created, forks refused, members of its cgroup now, zombies among them.
fn counts(web: &Running, port: u16) -> Result<[u64; 3], Failure> {
    let body = web.get(port, "/")?.body;
    let mut numbers = body.split(' ').map(|number| number.trim().parse().unwrap_or(u64::MAX));
    let mut next = || numbers.next().unwrap_or(u64::MAX);
    Ok([next(), next(), next()])
}

fn bomb(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["serve", "8080"] => serve_http(8080, fuse),
        ["serve", _] => serve_http(8081, |_| "calm".to_owned()),
        _ => multiply(),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fuse(path: &str) -> String {
    if path == "/explode" {
        return match spawn_one().and_then(|mut child| child.wait()) {
            Ok(_) => "lit".to_owned(),
            Err(error) => error.to_string(),
        };
    }
    let count = |file: &str| fs::metadata(file).map_or(0, |facts| facts.len());
    let [made, refused] = COUNTS.map(count);
    let now = fs::read_to_string("/sys/fs/cgroup/pids.current").unwrap_or_default();
    format!("{made} {refused} {now}")
}

/// Starts two copies of itself and exits before they do.
fn multiply() -> std::io::Result<()> {
    let [made, refused] = COUNTS;
    if count_one(made)? > ORPHANED {
        return Ok(());
    }
    for _ in 0..2 {
        if spawn_one().is_err() {
            count_one(refused)?;
        }
    }
    Ok(())
}

fn spawn_one() -> std::io::Result<std::process::Child> {
    Command::new("/proc/self/exe").args([ORPHANS.name, "multiply"]).spawn()
}

/// Increments the count in `file` and returns it.
fn count_one(file: &str) -> std::io::Result<u64> {
    let mut file = File::options().create(true).append(true).open(file)?;
    file.write_all(b"x")?;
    Ok(file.metadata()?.len())
}
