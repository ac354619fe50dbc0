//! Regardless of what is killed on the host, nothing keeps running and `ps` shows the true state.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::guest::serve_http;
use crate::scenario::{Failure, expect, expect_in};
use crate::{Lab, Outcome, Scenario, Vsock};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, service: web, target: 8080}]}";

/// How long a process may exist after its parent was killed: a kernel's parent-death signal is immediate, freeing a guest's
/// memory is not.
const GONE: Duration = Duration::from_secs(20);

/// QEMU is killed.
pub(super) const QEMU: Scenario =
    Scenario { name: "a_killed_qemu_ends_the_run_with_125_and_the_reason", host: qemu, guest };

/// The vsock device is killed.
pub(super) const VSOCK_DEVICE: Scenario = Scenario {
    name: "a_killed_vsock_device_ends_the_run_with_125_and_the_reason",
    host: vsock_device,
    guest,
};

/// The sleeve is killed.
pub(super) const SLEEVE: Scenario =
    Scenario { name: "a_killed_sleeve_leaves_nothing_running_and_ps_reports_it", host: sleeve, guest };

/// Ctrl-C.
pub(super) const CTRL_C: Scenario =
    Scenario { name: "ctrl_c_stops_a_ready_enclave_in_order", host: ctrl_c, guest };

fn qemu(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    kill(process_of(&web.wait_ready()?, "qemu")?)?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, "QEMU", "the reason")
}

fn vsock_device(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let inspected = web.wait_ready()?;
    kill(process_of(&inspected, "vsock")?)?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, "vhost-device-vsock", "the reason")?;
    gone(process_of(&inspected, "qemu")?)
}

fn sleeve(lab: &mut Lab) -> Outcome {
    let web = lab.boot(MANIFEST, &[])?;
    let inspected = web.wait_ready()?;
    web.signal(Signal::KILL)?;
    machine_gone(lab, &inspected)?;
    let ps = web.command(&["ps", "--all", "--json"])?;
    ps.expect_code(0)?;
    expect_in(&ps.stdout, "\"web\"", "ps shows the dead enclave")?;
    expect_in(&ps.stdout, "\"alive\":false", "ps shows it as dead")
}

fn ctrl_c(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let inspected = web.wait_ready()?;
    web.signal(Signal::INT)?;
    web.finish()?;
    machine_gone(lab, &inspected)
}

fn guest(_args: &[String]) -> ExitCode {
    if serve_http(8080, str::to_owned).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The process number that `inspect` shows for a host process of the enclave.
pub(super) fn process_of(inspected: &Value, part: &str) -> Result<Pid, Failure> {
    inspected
        .pointer(&format!("/processes/{part}"))
        .and_then(Value::as_i64)
        .and_then(|number| i32::try_from(number).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| Failure::failed(format_args!("inspect shows no process {part}: {inspected}")))
}

fn kill(process: Pid) -> Outcome {
    kill_process(process, Signal::KILL).map_err(|error| Failure::failed(format_args!("cannot kill: {error}")))
}

/// Waits until no process of a machine exists: the kernel's vsock has none.
fn machine_gone(lab: &Lab, inspected: &Value) -> Outcome {
    gone(process_of(inspected, "qemu")?)?;
    match lab.vsock() {
        Vsock::Program => gone(process_of(inspected, "vsock")?),
        Vsock::Kernel => Ok(()),
    }
}

/// Waits until a process that is not a child no longer exists.
fn gone(process: Pid) -> Outcome {
    let started = Instant::now();
    while test_kill_process(process).is_ok() {
        expect(
            started.elapsed() < GONE,
            format_args!(
                "process {} still exists {GONE:?} after its expected exit",
                process.as_raw_nonzero()
            ),
        )?;
        std::thread::yield_now();
    }
    Ok(())
}
