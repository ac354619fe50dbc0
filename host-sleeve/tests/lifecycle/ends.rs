//! Stories of enclaves that are ended from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::stage::{Ended, Place, is_gone};

/// How long something that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What appears in the enclave's folder as a launch goes on: the claim, the device, the machine, the sleeve's own door.
const STAGES: [&str; 4] = ["lock", "vsock.sock", "qmp.sock", "sleeve.sock"];

pub(crate) fn ctrl_c() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    running.signal(Signal::INT);
    running.end().with(0, "");
    let running = place.start("stubborn", &["--replace"]);
    running.signal(Signal::INT);
    while place.sleeve("", &["ps", "--json"]).json()[0]["stopping"] == false {}
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
        assert!(matches!(ended.code, Some(125 | 130)), "{stage}: {ended:?}");
        nothing_left(&place, stage);
    }
}

pub(crate) fn ctrl_c_detached() {
    let place = Place::new();
    let ended = interrupt_at(&place, "sleeve.sock", &["--detach"]);
    assert!(matches!(ended.code, Some(125 | 130)), "{ended:?}");
    nothing_left(&place, "detached");
}

/// Starts a guest that never becomes ready, and presses Ctrl-C when `stage` has come.
fn interrupt_at(place: &Place, stage: &str, words: &[&str]) -> Ended {
    let app = place.app();
    let all: Vec<&str> =
        ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(words).copied().collect();
    let mut command = place.command("mute", &all);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(stage, || place.runtime("web").join(stage).exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

/// No process of this place runs, and what is left of the enclave, if anything, says how it ended.
fn nothing_left(place: &Place, stage: &str) {
    wait_for(stage, || place.processes().is_empty());
    if place.runtime("web").exists() {
        let inspected = place.inspect();
        assert_eq!(inspected["alive"], false, "{stage}");
        assert_eq!(inspected["end"]["outcome"], "killed", "{stage}: {inspected}");
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::yield_now();
    }
}
