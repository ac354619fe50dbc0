//! The gateway carries connections in a process of its own: they outlive the supervisor, it is replaced when it dies, and it
//! holds nothing.
//!
//! No service can kill either, so the lab's init has a process beside it that does.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloister_wire::gateway::NAME;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::guest::{
    LOOK_AGAIN, MACHINE, find_process, find_servant, kill_supervisor, send_from_outside, serve_http,
};
use crate::lab::Running;
use crate::story::{Failure, expect, expect_eq};
use crate::{Lab, Outcome, Scenario};

/// The story of a supervisor that is gone, and of a gateway that is.
pub(super) const CRASHES: Scenario = Scenario {
    name: "a_download_survives_a_killed_supervisor_and_a_killed_gateway_is_back_at_once",
    host: crashes,
    guest,
};

/// The story of what confines it.
pub(super) const CONFINED: Scenario =
    Scenario { name: "the_gateway_holds_nothing_and_may_do_nothing_else", host: confined, guest };

const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, web], ready: {tcp: 8080}, critical: true}
ingress: [{port: 80, service: web, target: 8080}, {port: 81, service: web, target: 8081}]
";

/// Bytes of the download: much more than all buffers on the way hold.
const DOWNLOAD: usize = 24 * 1024 * 1024;

/// From the kill to the next answer: ten times what it takes without load, since other scenarios run beside this one.
const LONGEST: Duration = Duration::from_secs(3);

/// Where the service of the download listens.
const DOWNLOADS: u16 = 8081;

/// Clients that come while the supervisor stands still.
const NEWCOMERS: u32 = 5;

/// Bytes written at once.
const PIECE: usize = 64 * 1024;

fn crashes(lab: &mut Lab) -> Outcome {
    let (port, downloads) = (lab.free_port()?, lab.free_port()?);
    let publish = [format!("127.0.0.1:{port}:80"), format!("127.0.0.1:{downloads}:81")];
    let [first, second] = &publish;
    let words = ["--publish", first, "--publish", second];
    let mut web = lab.boot_with_sender(MANIFEST, &words)?;
    web.wait_ready()?;
    download_over_a_crash(&web, port, downloads)?;
    gateway_dies(&web, port)?;
    web.stop()?.expect_code(143)
}

/// The supervisor stands still, then dies, in the middle of a download; clients that come meanwhile are answered.
fn download_over_a_crash(web: &Running, port: u16, downloads: u16) -> Outcome {
    let bytes = thread::scope(|scope| {
        let download = scope.spawn(|| download(downloads));
        expect_answer(web, port, "/stop-supervisor", "done")?;
        for _ in 0..NEWCOMERS {
            expect_answer(web, port, "/", "done")?;
        }
        expect(!download.is_finished(), "the download waits for its second half")?;
        expect_answer(web, port, "/kill-supervisor", "done")?;
        download.join().map_err(|_| Failure::broken("the download panicked"))
    })?;
    let bytes = bytes.map_err(|error| Failure::broken(format_args!("the download broke: {error}")))?;
    expect_eq(&bytes.len(), &DOWNLOAD, "bytes of the download")?;
    let wrong = bytes.iter().enumerate().position(|(place, byte)| *byte != byte_at(place));
    expect_eq(&wrong, &None, "the first byte that is another")?;
    web.until("a record that counts the restart", || {
        let now = web.wait_ready()?;
        Ok((now.pointer("/status/supervisor_restarts") == Some(&json!(1))).then_some(()))
    })?;
    expect_eq(&of(&gateway(web)?, "restarts"), &json!(0), "restarts of the gateway")
}

fn expect_answer(web: &Running, port: u16, path: &str, body: &str) -> Outcome {
    expect_eq(&web.get(port, path)?.body.as_str(), &body, path)
}

fn download(port: u16) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(b"go")?;
    let mut bytes = Vec::with_capacity(DOWNLOAD);
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// The gateway dies: what comes next is answered soon, and the restart shows.
fn gateway_dies(web: &Running, port: u16) -> Outcome {
    let before = gateway(web)?;
    // The answer dies with the gateway.
    drop(web.get(port, "/kill-gateway"));
    let killed = Instant::now();
    while !web.get(port, "/").is_ok_and(|answer| answer.status == 200) {
        expect(killed.elapsed() < LONGEST, format_args!("no answer for {:?}", killed.elapsed()))?;
    }
    let took = killed.elapsed();
    expect(took < LONGEST, format_args!("the next answer came after {took:?}"))?;
    web.until("a record of the restart", || {
        let now = gateway(web)?;
        let restarted = of(&now, "restarts") == json!(1) && of(&now, "phase") == json!("ready");
        Ok((restarted && of(&now, "pid") != of(&before, "pid")).then_some(()))
    })?;
    let listed = web.ask(&["ps", "--json"])?.json()?;
    let shown = listed.pointer("/0/servants/0").cloned().unwrap_or_default();
    expect_eq(&(of(&shown, "name"), of(&shown, "restarts")), &(json!(NAME), json!(1)), "ps")?;
    let log = web.ask(&["logs", "web", "--service", "@gateway"])?;
    let all = format!("{}{}", log.stdout, log.stderr);
    expect(all.contains("ended: signal 9 SIGKILL"), format_args!("its log: {all}"))
}

/// The gateway as the status shows it.
fn gateway(web: &Running) -> Result<Value, Failure> {
    let status = web.inspect()?;
    let servant = status.pointer("/status/servants/0").cloned();
    servant.ok_or_else(|| Failure::broken(format_args!("no servant in {status}")))
}

/// A field of what was shown.
fn of(shown: &Value, field: &str) -> Value {
    shown.get(field).cloned().unwrap_or_default()
}

fn confined(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web =
        lab.boot_with_sender(MANIFEST, &["--cpus", "2", "--publish", &format!("127.0.0.1:{port}:80")])?;
    web.wait_ready()?;
    let found = web.ask(&["inspect", "web", "--service", "@gateway", "--json"])?.json()?;
    for (field, expected) in [
        ("uids", json!([61184, 61184, 61184, 61184])),
        ("gids", json!([61184, 61184, 61184, 61184])),
        ("groups", json!([])),
        ("no_new_privs", json!(true)),
        ("seccomp", json!(2)),
        ("capabilities_bounding", json!(0)),
        ("capabilities_effective", json!(0)),
        ("limits", json!([["Max core file size", "0", "0"], ["Max open files", "17152", "17152"]])),
    ] {
        expect_eq(&of(&found, field), &expected, field)?;
    }
    let mounts = of(&found, "mounts").as_array().cloned().unwrap_or_default();
    expect_eq(&mounts.len(), &1, "its mounts: an empty root")?;
    let options = mounts.first().and_then(|mount| mount.get(1)?.as_str()).unwrap_or_default();
    expect(options.starts_with("ro,nosuid,nodev,noexec"), format_args!("its root: {options}"))?;
    let limits = of(&found, "cgroup").to_string();
    expect(limits.contains(r#"["pids.max","2"]"#), format_args!("its cgroup: {limits}"))?;
    let seen = web.get(port, "/gateway")?.body;
    expect_eq(&seen.as_str(), &"Threads 2, CapPrm 0000000000000000, CapAmb 0000000000000000", "its process")?;
    web.stop()?.expect_code(143)
}

fn guest(_words: &[String]) -> ExitCode {
    let served = TcpListener::bind(("127.0.0.1", DOWNLOADS)).and_then(|listener| {
        thread::spawn(move || listener.incoming().for_each(|client| drop(client.and_then(give))));
        serve_http(8080, |path| {
            let done = match path {
                "/stop-supervisor" => find_process("supervisor").and_then(|pid| send(pid, Signal::STOP)),
                "/kill-supervisor" => kill_supervisor().map(|()| KILLED.store(true, Ordering::Relaxed)),
                "/kill-gateway" => find_servant(NAME).and_then(|pid| send(pid, Signal::KILL)),
                "/gateway" => return describe().unwrap_or_else(|error| error.to_string()),
                _ => Ok(()),
            };
            done.map_or_else(|error| error.to_string(), |()| "done".to_owned())
        })
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the supervisor has been killed.
static KILLED: AtomicBool = AtomicBool::new(false);

/// Gives the download: its second half once the supervisor is dead.
fn give(mut client: TcpStream) -> io::Result<()> {
    client.read_exact(&mut [0; 2])?;
    for start in (0..DOWNLOAD).step_by(PIECE) {
        while start >= DOWNLOAD / 2 && !KILLED.load(Ordering::Relaxed) {
            thread::park_timeout(LOOK_AGAIN);
        }
        let piece: Vec<u8> = (start..start + PIECE).map(byte_at).collect();
        client.write_all(&piece)?;
    }
    Ok(())
}

/// The byte of the download at this place: no piece is like another.
fn byte_at(place: usize) -> u8 {
    let mixed = place.wrapping_mul(0x9E37_79B9).wrapping_add(place >> 16);
    mixed.to_le_bytes()[2]
}

fn send(to: Pid, signal: Signal) -> io::Result<()> {
    send_from_outside(to, signal.as_raw())
}

/// Lines of the gateway's `/proc/PID/status`.
fn describe() -> io::Result<String> {
    let pid = find_servant(NAME)?;
    let status = fs::read_to_string(format!("{MACHINE}/{}/status", pid.as_raw_nonzero()))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        format!("{name} {}", line.unwrap_or_default().trim())
    };
    Ok(["Threads", "CapPrm", "CapAmb"].map(field).join(", "))
}
