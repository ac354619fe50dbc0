//! The gateway forwards connections in its own process: they outlive the supervisor, the gateway is replaced when it dies, and it
//! has no privileges.
//!
//! No service can kill either, so the lab's init has a process beside it that does.

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
    POLL_INTERVAL, find_process, find_servant, kill_supervisor, send_from_outside, servant_descriptors,
    servant_status, serve_http,
};
use crate::lab::Running;
use crate::scenario::{Failure, expect, expect_at, expect_eq};
use crate::{Lab, Outcome, Scenario};

/// A supervisor that is gone, and a gateway that is.
pub(super) const CRASHES: Scenario = Scenario {
    name: "a_download_survives_a_killed_supervisor_and_a_killed_gateway_is_replaced",
    host: crashes,
    guest,
};

/// The gateway's confinement.
pub(super) const CONFINED: Scenario =
    Scenario { name: "the_gateway_has_no_privileges", host: confined, guest };

const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, web], ready: {tcp: 8080}, critical: true}
ingress: [{port: 80, service: web, target: 8080}, {port: 81, service: web, target: 8081}]
";

/// The kinds of descriptors that the gateway has open: no file, no folder, and no device except this one.
const DESCRIPTORS: &str = "/dev/null, anon_inode:[eventfd], anon_inode:[eventpoll], pipe:[], socket:[]";

/// Bytes of the download: much more than the capacity of all buffers on the path.
const DOWNLOAD: usize = 24 * 1024 * 1024;

/// Maximum time from the kill to the next answer: ten times what it takes without load, since other scenarios run in parallel.
const LONGEST: Duration = Duration::from_secs(3);

/// The port of the download.
const DOWNLOADS: u16 = 8081;

/// Clients that connect while the supervisor is stopped.
const NEWCOMERS: u32 = 5;

/// Bytes per write.
const PIECE: usize = 64 * 1024;

fn crashes(lab: &mut Lab) -> Outcome {
    let (port, downloads) = (lab.free_port()?, lab.free_port()?);
    let publish = [format!("127.0.0.1:{port}:80"), format!("127.0.0.1:{downloads}:81")];
    let [first, second] = &publish;
    let args = ["--publish", first, "--publish", second];
    let mut web = lab.boot_with_sender(MANIFEST, &args)?;
    web.wait_ready()?;
    download_over_a_crash(&web, port, downloads)?;
    gateway_dies(&web, port)?;
    web.stop()?.expect_code(143)
}

/// The supervisor is stopped, then killed, in the middle of a download; clients that connect meanwhile are answered.
fn download_over_a_crash(web: &Running, port: u16, downloads: u16) -> Outcome {
    let bytes = thread::scope(|scope| {
        let download = scope.spawn(|| download(downloads));
        expect_answer(web, port, "/stop-supervisor", "done")?;
        for _ in 0..NEWCOMERS {
            expect_answer(web, port, "/", "done")?;
        }
        expect(!download.is_finished(), "the download waits for its second half")?;
        expect_answer(web, port, "/kill-supervisor", "done")?;
        download.join().map_err(|_| Failure::failed("the download panicked"))
    })?;
    let bytes = bytes.map_err(|error| Failure::failed(format_args!("the download broke: {error}")))?;
    expect_eq(&bytes.len(), &DOWNLOAD, "bytes of the download")?;
    let wrong = bytes.iter().enumerate().position(|(place, byte)| *byte != byte_at(place));
    expect_eq(&wrong, &None, "the first wrong byte")?;
    web.until("a record that counts the restart", || {
        let now = web.wait_ready()?;
        Ok((now.pointer("/status/supervisor_restarts") == Some(&json!(1))).then_some(()))
    })?;
    expect_at(&gateway(web)?, "/restarts", 0)
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

/// The gateway dies: the next request is answered soon, and the restart is reported.
fn gateway_dies(web: &Running, port: u16) -> Outcome {
    let before = gateway(web)?;
    // The answer is lost with the gateway.
    drop(web.get(port, "/kill-gateway"));
    let killed = Instant::now();
    while !web.get(port, "/").is_ok_and(|answer| answer.status == 200) {
        expect(killed.elapsed() < LONGEST, format_args!("no answer for {:?}", killed.elapsed()))?;
    }
    let took = killed.elapsed();
    expect(took < LONGEST, format_args!("the next answer came after {took:?}"))?;
    web.until("a record of the restart", || {
        let now = gateway(web)?;
        let restarted = now.get("restarts") == Some(&json!(1)) && now.get("phase") == Some(&json!("ready"));
        Ok((restarted && now.get("pid") != before.get("pid")).then_some(()))
    })?;
    let listed = web.command(&["ps", "--json"])?.json()?;
    let shown = listed.pointer("/0/servants/0");
    let shown = shown.ok_or_else(|| Failure::failed(format_args!("no servant in {listed}")))?;
    expect_at(shown, "/name", NAME)?;
    expect_at(shown, "/restarts", 1)?;
    let log = web.command(&["logs", "web", "--service", "@gateway"])?;
    let all = format!("{}{}", log.stdout, log.stderr);
    expect(all.contains("ended: signal 9 SIGKILL"), format_args!("its log: {all}"))
}

/// The gateway in the status.
fn gateway(web: &Running) -> Result<Value, Failure> {
    let status = web.inspect()?;
    let servant = status.pointer("/status/servants/0").cloned();
    servant.ok_or_else(|| Failure::failed(format_args!("no servant in {status}")))
}

fn confined(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web =
        lab.boot_with_sender(MANIFEST, &["--cpus", "2", "--publish", &format!("127.0.0.1:{port}:80")])?;
    web.wait_ready()?;
    let found = web.command(&["inspect", "web", "--service", "@gateway", "--json"])?.json()?;
    expect_no_privileges(&found, 61184, "17152")?;
    let limits = found.get("cgroup").map(Value::to_string).unwrap_or_default();
    expect(limits.contains(r#"["pids.max","2"]"#), format_args!("its cgroup: {limits}"))?;
    let seen = web.get(port, "/gateway")?.body;
    expect_eq(&seen.as_str(), &"Threads 2, CapPrm 0000000000000000, CapAmb 0000000000000000", "its process")?;
    let open = web.get(port, "/descriptors")?.body;
    expect_eq(&open.as_str(), &DESCRIPTORS, "its open descriptors")?;
    web.stop()?.expect_code(143)
}

/// What `inspect --service` shows of a servant of this user, which may have this many open files.
pub(super) fn expect_no_privileges(found: &Value, user: u32, files: &str) -> Outcome {
    for (field, expected) in [
        ("uids", json!([user, user, user, user])),
        ("gids", json!([user, user, user, user])),
        ("groups", json!([])),
        ("no_new_privs", json!(true)),
        ("seccomp", json!(2)),
        ("capabilities_bounding", json!(0)),
        ("capabilities_effective", json!(0)),
        ("limits", json!([["Max core file size", "0", "0"], ["Max open files", files, files]])),
    ] {
        expect_at(found, &format!("/{field}"), expected)?;
    }
    let mounts = found.get("mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    expect_eq(&mounts.len(), &1, "its mounts: an empty root")?;
    let options = mounts.first().and_then(|mount| mount.pointer("/1")?.as_str()).unwrap_or_default();
    expect(options.starts_with("ro,nosuid,nodev,noexec"), format_args!("its root: {options}"))
}

fn guest(_args: &[String]) -> ExitCode {
    let served = TcpListener::bind(("127.0.0.1", DOWNLOADS)).and_then(|listener| {
        thread::spawn(move || listener.incoming().for_each(|client| drop(client.and_then(give))));
        serve_http(8080, |path| {
            let done = match path {
                "/stop-supervisor" => find_process("supervisor").and_then(|pid| send(pid, Signal::STOP)),
                "/kill-supervisor" => kill_supervisor().map(|()| KILLED.store(true, Ordering::Relaxed)),
                "/kill-gateway" => find_servant(NAME).and_then(|pid| send(pid, Signal::KILL)),
                "/descriptors" => return servant_descriptors(NAME).unwrap_or_else(|error| error.to_string()),
                "/gateway" => {
                    let lines = servant_status(NAME, &["Threads", "CapPrm", "CapAmb"]);
                    return lines.unwrap_or_else(|error| error.to_string());
                }
                _ => Ok(()),
            };
            done.map_or_else(|error| error.to_string(), |()| "done".to_owned())
        })
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the supervisor has been killed.
static KILLED: AtomicBool = AtomicBool::new(false);

/// Sends the download: its second half once the supervisor is dead.
fn give(mut client: TcpStream) -> io::Result<()> {
    client.read_exact(&mut [0; 2])?;
    for start in (0..DOWNLOAD).step_by(PIECE) {
        while start >= DOWNLOAD / 2 && !KILLED.load(Ordering::Relaxed) {
            thread::park_timeout(POLL_INTERVAL);
        }
        let piece: Vec<u8> = (start..start + PIECE).map(byte_at).collect();
        client.write_all(&piece)?;
    }
    Ok(())
}

/// The byte of the download at this place: no two parts are alike.
fn byte_at(place: usize) -> u8 {
    let mixed = place.wrapping_mul(0x9E37_79B9).wrapping_add(place >> 16);
    mixed.to_le_bytes()[2]
}

fn send(to: Pid, signal: Signal) -> io::Result<()> {
    send_from_outside(to, signal.as_raw())
}
