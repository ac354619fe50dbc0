//! Ctrl-C at any point of a run: no process keeps running, and no directory remains that `ps` does not show.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::guest::{catch, print};
use crate::lab::BOOT_LIMIT;
use crate::scenario::{expect, expect_eq};
use crate::{Lab, Outcome, Scenario, Vsock};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "ctrl_c_at_any_point_of_a_run_leaves_nothing_behind", host, guest };

/// The service never becomes ready and ignores its stop signal.
const MANIFEST: &str =
    "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}, stop_timeout: 60s}}}";

/// A point in a run: a file in the enclave's directory, and part of its content by then.
type Moment = (&'static str, &'static str);

/// In order: the name is claimed, the sleeve accepts requests, the vsock device listens, QEMU runs, the machine is monitored,
/// the kernel has started init, the supervisor runs, the service runs.
const MOMENTS: [Moment; 8] = [
    ("lock", ""),
    ("sleeve.sock", ""),
    ("vsock.sock", ""),
    ("qmp.sock", ""),
    ("console.log", ""),
    ("console.log", "stage 1/"),
    ("console.log", "serve: done"),
    ("log", "here"),
];

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let folder = lab.folder().join("run/web");
    // The kernel's vsock has no socket in the enclave's directory.
    let comes = |moment: &Moment| lab.vsock() == Vsock::Program || moment.0 != "vsock.sock";
    for moment in MOMENTS.into_iter().filter(comes) {
        let mut web = lab.run(&image, &["--replace"])?;
        await_moment(&folder, moment)?;
        web.signal(Signal::INT)?;
        if moment == ("log", "here") {
            // It is being stopped by its stop signal, which this service ignores.
            web.until("the start of the stop", || {
                Ok((web.inspect()?.pointer("/status/state") == Some(&"stopping".into())).then_some(()))
            })?;
            web.signal(Signal::INT)?;
        }
        let ended = web.finish()?;
        expect(ended.code == Some(130), format_args!("{moment:?}: {ended:?}"))?;
        nothing_left(lab, moment)?;
        fs::remove_dir_all(&folder).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

fn await_moment(folder: &Path, (file, part): Moment) -> Outcome {
    let started = Instant::now();
    let has_come = || {
        fs::read(folder.join(file)).map_or_else(
            // A socket exists and cannot be read.
            |_| part.is_empty() && folder.join(file).exists(),
            |bytes| String::from_utf8_lossy(&bytes).contains(part),
        )
    };
    while !has_come() {
        expect(started.elapsed() < BOOT_LIMIT, format_args!("{file} never contained {part:?}"))?;
        std::thread::yield_now();
    }
    Ok(())
}

fn nothing_left(lab: &Lab, moment: Moment) -> Outcome {
    let started = Instant::now();
    while let Some(process) = process_in(lab.folder()) {
        expect(
            started.elapsed() < BOOT_LIMIT,
            format_args!("{moment:?}: process {process} is still running"),
        )?;
        std::thread::yield_now();
    }
    let ps = lab.sleeve(&["ps", "--all", "--json"]).finish()?.json()?;
    let shown: Vec<&str> =
        ps.as_array().into_iter().flatten().filter_map(|one| one.pointer("/name")?.as_str()).collect();
    let there = lab.folder().join("run/web").exists();
    expect_eq(&shown.contains(&"web"), &there, &format!("{moment:?}: what ps shows of the directory"))?;
    expect(
        ps.as_array()
            .is_some_and(|all| all.iter().all(|one| one.pointer("/alive") == Some(&Value::Bool(false)))),
        format_args!("{moment:?}: {ps}"),
    )
}

/// A process started in a directory below `folder`, as every part of a machine is.
fn process_in(folder: &Path) -> Option<u32> {
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut within = processes.filter(|process: &u32| {
        fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    });
    within.next()
}

fn guest(_args: &[String]) -> ExitCode {
    // A caught signal that nothing reads is ignored.
    let result = catch(Signal::TERM).and_then(|_ignored| {
        let mut never = catch(Signal::USR1)?;
        print(b"here\n")?;
        never.wait()
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
