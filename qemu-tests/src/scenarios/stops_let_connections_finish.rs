//! A stop lets open connections finish, for a limited time, accepts no new ones, and can come from anywhere that ends a machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::guest::{catch, print, send_from_outside};
use crate::lab::{COMMAND_LIMIT, Running};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A request in progress.
pub(super) const DRAIN: Scenario =
    Scenario { name: "a_request_in_progress_is_answered_before_a_service_stops", host: drain, guest: serve };

/// A connection that neither side closes.
pub(super) const DRAIN_DEADLINE: Scenario = Scenario {
    name: "an_open_connection_delays_a_stop_for_a_limited_time",
    host: drain_deadline,
    guest: serve,
};

/// A signal to the first process.
pub(super) const SIGTERM: Scenario =
    Scenario { name: "sigterm_to_init_stops_the_services_in_order", host: sigterm, guest: terminate };

/// The power button.
pub(super) const POWER_BUTTON: Scenario =
    Scenario { name: "the_power_button_stops_the_services_in_order", host: power_button, guest: serve };

const MANIFEST: &str = "
version: 1
stop_timeout: 4s
services:
  web: {command: [PROBE], ready: {tcp: 8080}, stop_timeout: 2s}
ingress: [{port: 80, target: 8080}]
";

/// How long connections get at most: half of the manifest's `stop_timeout`.
const DRAIN_TIME: Duration = Duration::from_secs(2);

fn start(lab: &mut Lab) -> Result<(Running, u16), Failure> {
    let port = lab.free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let web = lab.boot(MANIFEST, &["--publish", &publish])?;
    web.wait_ready()?;
    Ok((web, port))
}

fn drain(lab: &mut Lab) -> Outcome {
    let (mut web, port) = start(lab)?;
    let mut open = greeted(port)?;
    thread::scope(|scope| {
        let stop = scope.spawn(|| web.command(&["stop", "web"]));
        web.wait_state("stopping")?;
        let mut late = String::new();
        // Refused: by a reset or an end, before the service sends a byte.
        let refused = connect(port)?.read_to_string(&mut late);
        expect(late.is_empty(), format_args!("a new connection was accepted: {refused:?} {late:?}"))?;
        writeln!(open.get_mut(), "finish")?;
        let mut answer = String::new();
        open.read_line(&mut answer)?;
        expect_eq(&answer.as_str(), &"finished\n", "the answer to the request in progress")?;
        drop(open);
        stop.join().map_err(|_| Failure::failed("host-sleeve stop was not run"))??.expect_code(0)
    })?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    let (finished, asked) = (ended.stdout.find("finished one"), ended.stdout.find("asked to stop"));
    let in_order = finished.zip(asked).is_some_and(|(finished, asked)| finished < asked);
    expect(in_order, format_args!("the request, then the stop:\n{}", ended.stdout))?;
    expect_in(&ended.stderr, "it is draining", "the reason for the refusal")
}

fn drain_deadline(lab: &mut Lab) -> Outcome {
    let (mut web, port) = start(lab)?;
    let open = greeted(port)?;
    let ended = web.stop()?;
    drop(open);
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "asked to stop", "the service's last line")?;
    let records = web.command(&["logs", "web", "--json"])?;
    let stopping = logged_at(&records.stdout, "stopping: requested by")?;
    let asked = logged_at(&records.stdout, "asked to stop")?;
    let waited = asked.saturating_sub(stopping);
    expect(
        waited >= DRAIN_TIME && waited < DRAIN_TIME.saturating_mul(2),
        format_args!("the connection had {waited:?}, not {DRAIN_TIME:?}"),
    )
}

/// When, since boot, the first record that contains `text` was written.
fn logged_at(records: &str, text: &str) -> Result<Duration, Failure> {
    let record = records.lines().find(|line| line.contains(text));
    let record: serde_json::Value = serde_json::from_str(record.unwrap_or_default())?;
    let time = record.get("since_boot_ns").and_then(serde_json::Value::as_u64);
    time.map(Duration::from_nanos)
        .ok_or_else(|| Failure::failed(format_args!("no record contains {text:?} in:\n{records}")))
}

fn sigterm(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot_with_sender(
        "
version: 1
services:
  web: {command: [PROBE, serve], ready: {tcp: 8080}, critical: true}
  root: {command: [PROBE, terminate], kind: job, after: [web]}
  outside: {command: [PROBE, have-terminated], kind: job, after: [root]}
",
        &[],
    )?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(
        &ended.stdout,
        "it came to the service itself",
        "what a service that is root sends to process 1",
    )?;
    expect_in(&ended.stderr, "stopping: SIGTERM to init", "the cause")?;
    expect_in(&ended.stdout, "asked to stop", "the service's last line")
}

fn terminate(args: &[String]) -> ExitCode {
    let sent = match args.first().map(String::as_str) {
        Some("serve") => return serve(&[]),
        Some("terminate") => return terminate_itself(),
        _ => send_from_outside(Pid::INIT, Signal::TERM.as_raw()),
    };
    let printed = match sent {
        Ok(()) => print(b"sent\n"),
        Err(error) => print(format!("refused: {error}\n").as_bytes()),
    };
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Process 1 is the service's own, and forwards the signals it receives.
fn terminate_itself() -> ExitCode {
    let came = catch(Signal::TERM).and_then(|mut term| {
        kill_process(Pid::INIT, Signal::TERM)?;
        term.wait()?;
        print(b"it came to the service itself\n")
    });
    if came.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn power_button(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let (mut web, monitor) = lab.run_with_monitor(&image, &["--machine", "q35"])?;
    web.wait_ready()?;
    monitor.execute("system_powerdown")?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stderr, "stopping: the power button", "the cause")?;
    expect_in(&ended.stdout, "asked to stop", "the service's last line")
}

fn connect(port: u16) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    Ok(stream)
}

/// A connection that the service has accepted.
fn greeted(port: u16) -> Result<BufReader<TcpStream>, Failure> {
    let mut stream = BufReader::new(connect(port)?);
    let mut greeting = String::new();
    stream.read_line(&mut greeting)?;
    expect_eq(&greeting.as_str(), &"welcome\n", "the service's greeting")?;
    Ok(stream)
}

/// Greets each client, and answers a line with another.
fn serve(_args: &[String]) -> ExitCode {
    let result = catch(Signal::TERM).and_then(|mut term| {
        let listener = TcpListener::bind(("127.0.0.1", 8080))?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || answer(client));
            }
        });
        term.wait()?;
        print(b"asked to stop\n")
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.write_all(b"welcome\n")?;
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line)?;
    print(b"finished one\n")?;
    client.write_all(b"finished\n")
}
