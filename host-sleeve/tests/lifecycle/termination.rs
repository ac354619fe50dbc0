//! Tests of enclaves that are terminated from outside.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::fixture::{Ended, Place, is_gone};

/// Time limit for an expected event, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// The files that appear in the enclave's directory during a launch: lock, device socket, machine socket, the sleeve's socket.
const STAGES: [&str; 4] = ["lock", "vsock.sock", "qmp.sock", "sleeve.sock"];

pub(crate) fn ctrl_c() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    running.signal(Signal::INT);
    running.end().with(0, "");
    let running = place.start("stubborn", &["--replace"]);
    running.signal(Signal::INT);
    wait_for("the stop to have begun", || {
        place.sleeve("", &["ps", "--json"]).json()[0]["state"] == "stopping"
    });
    running.signal(Signal::INT);
    running.end().with(130, "killed: interrupted");
}

pub(crate) fn stubborn() {
    let place = Place::new();
    let running = place.start("stubborn", &[]);
    place.sleeve("", &["stop", "web", "--grace", "100ms"]).with(0, "");
    running.end().with(137, "it did not stop in time");
}

pub(crate) fn killed_sleeve() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    let inspected = place.inspect();
    assert_eq!(inspected["processes"]["sleeve"], running.pid());
    let handle = &inspected["handle"];
    assert!(handle["created"] == true && handle["processes"][0][0] == "qemu", "{handle}");
    running.signal(Signal::KILL);
    running.end();
    for part in ["qemu", "vsock"] {
        let pid = inspected["processes"][part].as_u64().unwrap();
        while !is_gone(pid) {
            std::thread::yield_now();
        }
    }
    let ps = place.sleeve("", &["ps", "--all", "--json"]);
    assert!(ps.text().contains("\"alive\":false"), "{ps:?}");
    assert_eq!(ps.json()[0]["state"], "killed: the sleeve died");
    place.sleeve("", &["stop", "web"]).with(0, "the sleeve died");
    place.run("exit:0", &["--replace"]).with(0, "");
}

pub(crate) fn killed_while_creating() {
    let place = Place::new();
    let app = place.app();
    let mut command = place.command("serve", &["run", &app, "--name", "web", "--accel", "tcg"]);
    let mut sleeve = command.env("FAKE_VSOCK", "hangs").spawn().unwrap();
    while place.processes().is_empty() {
        std::thread::yield_now();
    }
    let record = place.inspect();
    assert_eq!(record["handle"], serde_json::json!({"backend": "qemu", "created": false}), "{record}");
    sleeve.kill().unwrap();
    sleeve.wait().unwrap();
    while !place.processes().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(place.sleeve("", &["ps", "--all", "--json"]).json()[0]["state"], "killed: the sleeve died");
    place.sleeve("", &["rm", "web"]).with(0, "");
    assert!(!place.runtime("web").exists());
}

pub(crate) fn unknown_backend() {
    let place = Place::new();
    place.run("exit:0", &[]).with(0, "");
    let path = place.runtime("web").join("state.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["backend"] = "cray".into();
    record["handle"] = serde_json::json!({"backend": "cray", "created": true, "node": 7});
    let end = record["end"].take();
    std::fs::write(&path, record.to_string()).unwrap();
    let why = "web may still be running on a backend that this host-sleeve does not have";
    place.sleeve("", &["rm", "web"]).with(125, why);
    place.sleeve("", &["stop", "web"]).with(125, why);
    place.run("exit:0", &["--replace"]).with(125, why);
    record["end"] = end;
    std::fs::write(&path, record.to_string()).unwrap();
    place.sleeve("", &["rm", "web"]).with(0, "");
}

pub(crate) fn killed_qemu() {
    killed_part("qemu", "QEMU was killed by SIGKILL");
}

pub(crate) fn killed_device() {
    killed_part("vsock", "vhost-device-vsock was killed by SIGKILL");
}

fn killed_part(part: &str, reason: &str) {
    let place = Place::new();
    let running = place.start("serve", &[]);
    let inspected = place.inspect();
    let pid = i32::try_from(inspected["processes"][part].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    running.end().with(125, reason);
    for part in ["qemu", "vsock"] {
        assert!(is_gone(inspected["processes"][part].as_u64().unwrap()), "{part} still runs");
    }
}

pub(crate) fn ctrl_c_early() {
    for stage in STAGES {
        let place = Place::new();
        let ended = interrupt_at(&place, stage, &[]);
        assert!(ended.was_interrupted(), "{stage}: {ended:?}");
        nothing_left(&place, stage);
    }
}

pub(crate) fn ctrl_c_detached() {
    let place = Place::new();
    let ended = interrupt_at(&place, "sleeve.sock", &["--detach"]);
    assert!(ended.was_interrupted(), "{ended:?}");
    nothing_left(&place, "detached");
}

/// As from a terminal: the signal is sent to every process of the group, at an arbitrary point of the launch.
pub(crate) fn ctrl_c_of_a_group() {
    for (number, delay) in (0..20).map(|step| Duration::from_millis(step * 2)).enumerate() {
        let place = Place::new();
        let app = place.app();
        let mut args = vec!["run", &app, "--name", "web", "--accel", "tcg"];
        if number % 2 == 0 {
            args.push("--detach");
        }
        let mut command = place.command("mute", &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().unwrap();
        std::thread::park_timeout(delay);
        kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert!(ended.was_interrupted(), "{args:?} after {delay:?}: {ended:?}");
        nothing_left(&place, "after Ctrl-C");
    }
}

/// `nohup` and the `&` of a script start a program with signals ignored.
pub(crate) fn ignored_signals() {
    let place = Place::new();
    let app = place.app();
    let run = ["run", &app, "--name", "web", "--accel", "tcg"];
    let sleeve = place.command("serve", &run);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "trap '' INT HUP; exec \"$0\" \"$@\""]).arg(sleeve.get_program());
    command.args(sleeve.get_args()).envs(sleeve.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let running = Place::start_command(command);
    for signal in [Signal::INT, Signal::HUP] {
        running.signal(signal);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigIgn:") & 0b11, 0b11, "{status}");
    assert_eq!(mask("SigCgt:") & 0b11, 0, "{status}");
    assert_eq!(place.inspect()["status"]["state"], "ready");
    running.signal(Signal::TERM);
    running.end().with(0, "");
}

pub(crate) fn removed_directory() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    // The sleeve may write its record meanwhile.
    wait_for("the directory to be removed", || std::fs::remove_dir_all(place.runtime("web")).is_ok());
    wait_for("the enclave to be shown again", || {
        place.sleeve("", &["ps", "--quiet"]).text() == "web\n"
            && place.runtime("web").join("sleeve.sock").exists()
    });
    assert_eq!(place.inspect()["processes"]["sleeve"], running.pid());
    place.run("serve", &["--replace"]).with(125, "an enclave named web is running");
    place.sleeve("", &["stop", "web"]).with(0, "");
    running.end().with(0, "the directory of a running enclave was modified");
    assert_eq!(place.inspect()["end"]["code"], 0);
}

pub(crate) fn removed_lock() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    let qemu = place.inspect()["processes"]["qemu"].as_u64().unwrap();
    std::fs::remove_file(place.runtime("web").join("lock")).unwrap();
    place.sleeve("", &["rm", "web"]).with(125, "is running");
    place.run("serve", &["--replace"]).with(125, "an enclave named web is running");
    assert!(!is_gone(qemu), "rm killed a running enclave whose lock was removed");
    // An unreachable sleeve does not prevent the enclave from being killed either.
    std::fs::remove_file(place.runtime("web").join("sleeve.sock")).unwrap_or_default();
    place.sleeve("", &["rm", "--force", "web"]).with(0, "");
    running.end();
    wait_for("the machine to end", || is_gone(qemu));
    assert!(!place.runtime("web").exists());
}

/// The other files in the directory are not touched: no log record is printed twice.
pub(crate) fn repaired_directory() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    wait_for("the log", || place.sleeve("", &["logs", "web"]).text().ends_with("half a line\n"));
    for file in ["lock", "state.json", "sleeve.sock"] {
        std::fs::remove_file(place.runtime("web").join(file)).unwrap();
    }
    wait_for("the directory to be repaired", || place.sleeve("", &["ps", "--quiet"]).text() == "web\n");
    place.sleeve("", &["stop", "web"]).with(0, "");
    let ended = running.end();
    ended.with(0, "the directory of a running enclave was modified");
    assert_eq!(ended.text(), "hello from the guest\nhalf a line\n");
}

pub(crate) fn unread_output() {
    let place = Place::new();
    let running = place.start("talks:1000000", &[]);
    place.sleeve("", &["stop", "web"]).with(0, "still has output to print");
    place.sleeve("", &["stop", "web"]).with(0, "web had already ended: exited (0)");
    assert_eq!(place.inspect()["end"]["code"], 0);
    place.sleeve("", &["rm", "web"]).with(125, "still has output to print");
    place.run("serve", &["--replace"]).with(125, "still has output to print");
    place.sleeve("", &["rm", "--force", "web"]).with(0, "");
    assert!(!place.runtime("web").exists());
    assert!(running.end().signal.is_some(), "it exited only because its output was read");
}

pub(crate) fn stop_of_several() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    let app = place.app();
    let run = ["run", &app, "--accel", "tcg", "--detach", "--name", "api"];
    place.sleeve("serve", &run).with(0, "is ready");
    std::fs::remove_file(place.runtime("api").join("sleeve.sock")).unwrap();
    let stopped = place.sleeve("", &["stop", "api", "web"]);
    stopped.with(125, "cannot reach the sleeve of api");
    assert_eq!(stopped.text(), "web\n");
    running.end().with(0, "");
    place.sleeve("", &["rm", "--force", "api"]).with(0, "");
}

pub(crate) fn ctrl_c_while_printing() {
    let place = Place::new();
    let running = place.start("talks:1000000", &["--rm"]);
    place.sleeve("", &["stop", "web"]).with(0, "still has output to print");
    running.signal(Signal::INT);
    wait_for("the run to end", || is_gone(running.pid().into()));
    running.end().with(0, "");
    assert!(!place.runtime("web").exists());
}

pub(crate) fn unread_terminal() {
    let place = Place::new();
    let app = place.app();
    let run = ["run", &app, "--name", "web", "--accel", "tcg", "--console"];
    let mut command = place.command("console:2000", &run);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the enclave to be ready", || place.sleeve("", &["ps", "--json"]).json()[0]["state"] == "ready");
    place.sleeve("", &["stop", "web"]).with(0, "still has output to print");
    assert_eq!(place.inspect()["end"]["code"], 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn rm_all() {
    let place = Place::new();
    place.run("exit:0", &[]).with(0, "");
    let app = place.app();
    let run = ["run", &app, "--accel", "tcg", "--detach", "--name", "api"];
    place.sleeve("serve", &run).with(0, "is ready");
    assert_eq!(place.sleeve("", &["rm", "--all"]).text(), "web\n");
    assert_eq!(place.sleeve("", &["ps", "--quiet"]).text(), "api\n");
    let forced = place.sleeve("", &["rm", "--all", "--force"]);
    forced.with(0, "");
    assert_eq!(forced.text(), "api\n");
    assert_eq!(place.processes(), [""; 0]);
}

/// Starts a guest that never becomes ready, and sends SIGINT when the file `stage` exists.
fn interrupt_at(place: &Place, stage: &str, args: &[&str]) -> Ended {
    let app = place.app();
    let all: Vec<&str> =
        ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(args).copied().collect();
    let mut command = place.command("mute", &all);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(stage, || place.runtime("web").join(stage).exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

/// Checks that no process is left, and that a remaining record states how the enclave ended.
fn nothing_left(place: &Place, stage: &str) {
    wait_for(stage, || place.processes().is_empty());
    if place.runtime("web").exists() {
        // A process that was just forked may hold the lock for a moment, until it executes its program.
        wait_for(stage, || place.inspect()["alive"] == false);
        let inspected = place.inspect();
        assert_eq!(inspected["end"]["outcome"], "killed", "{stage}: {inspected}");
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "timed out waiting for {what}");
        std::thread::yield_now();
    }
}
