//! An init for scenarios: the word in `/trial` selects a failure to inject, to check how the machine then shuts down, or
//! starts a process that sends signals on behalf of services, which cannot signal processes other than their own.
//!
//! Invariant: it is never shipped. It only adds the stages `first`, `pretend`, `freeze`, `elsewhere` and `late` to the real
//! table.

#![expect(clippy::unnecessary_wraps, reason = "a stage of the table can fail")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use cloister_init::boot::{Boot, BootError, BootStage};
use cloister_init::{STAGES, cgroup};
use cloister_sys::platform::Platform;
use cloister_sys::process::{Fork, fork_into};
use cloister_sys::signal;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::Pid;

/// Where services send requests about any process, in the abstract namespace. `PID SIGNAL` sends a signal; the response is the
/// error's number, 0 for none. `PID descriptors` returns the targets of the process's open descriptors, one per line.
const SENDER: &str = "trial/signals";

/// Where services find the machine's processes: in the root that they share.
const PROCESSES: &str = "/run/cloister/root/machine";

fn main() {
    let mut stages = vec![BootStage { name: "first", run: first }];
    for stage in STAGES {
        stages.push(stage);
        match stage.name {
            "platform" => stages.push(BootStage { name: "pretend", run: pretend }),
            "measure" => stages.push(BootStage { name: "freeze", run: freeze }),
            "root" => stages.push(BootStage { name: "elsewhere", run: elsewhere }),
            _ => {}
        }
    }
    stages.push(BootStage { name: "late", run: late });
    cloister_init::run(&stages)
}

/// The failure to inject.
fn trial() -> String {
    std::fs::read_to_string("/trial").unwrap_or_default().trim().to_owned()
}

/// Nothing is mounted here.
#[expect(clippy::panic, reason = "the effect of a panic of PID 1 is what is tested")]
fn first(_: &mut Boot) -> Result<String, BootError> {
    if trial() == "panic-first" { panic!("before anything was mounted") } else { Ok(String::new()) }
}

/// The clock source in use.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Makes the stage `clock` believe that the machine is one whose clock source must be the processor's counter, and uses another
/// one. `hides` also hides the kernel's setting behind an empty directory with the two files, in which only that one is available.
fn use_other_clock(boot: &mut Boot, hides: bool) -> io::Result<()> {
    boot.platform = Some(Platform::Snp);
    let settings = Path::new(CLOCK_SOURCE).parent().ok_or(io::ErrorKind::InvalidInput)?;
    if hides {
        rustix::mount::mount("none", settings, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
        fs::write(settings.join("available_clocksource"), "acpi_pm")?;
    }
    fs::write(CLOCK_SOURCE, "acpi_pm")?;
    let used = fs::read_to_string(CLOCK_SOURCE)?;
    if used.trim() == "acpi_pm" { Ok(()) } else { Err(io::Error::other(used)) }
}

/// Makes later stages believe that the machine is another platform, or exits, which PID 1 never does.
#[expect(clippy::exit, reason = "what the kernel does when PID 1 exits is what is tested")]
fn pretend(boot: &mut Boot) -> Result<String, BootError> {
    match trial().as_str() {
        "nitro" => boot.platform = Some(Platform::Nitro),
        name @ ("other-clock" | "only-other-clock") => use_other_clock(boot, name == "only-other-clock")
            .map_err(|error| BootError::Path(CLOCK_SOURCE, error))?,
        "end" => std::process::exit(0),
        "signals" => fork_sender().map_err(|error| BootError::Kernel("cannot start the sender", error))?,
        _ => {}
    }
    Ok(String::new())
}

/// Makes the supervisor believe that the machine is another platform. All stages before have used the detected one, so this works
/// without that platform's hardware.
fn elsewhere(boot: &mut Boot) -> Result<String, BootError> {
    if trial() == "snp" {
        boot.platform = Some(Platform::Snp);
    }
    Ok(String::new())
}

/// The group that supervisors are forked into.
const SUPERVISORS: &str = "/sys/fs/cgroup/supervisor";

/// How often the process that thaws checks for a second supervisor, in milliseconds.
const CHECK_MS: i64 = 50;

/// Makes the first supervisor hang as soon as it is forked, in a frozen cgroup (`cgroup.freeze`), but not the second.
fn freeze(_: &mut Boot) -> Result<String, BootError> {
    if trial() == "frozen" {
        fs::create_dir(SUPERVISORS)
            .and_then(|()| fs::write([SUPERVISORS, "/cgroup.freeze"].concat(), "1"))
            .and_then(|()| fork_thaw())
            .map_err(|error| BootError::Path(SUPERVISORS, error))?;
    }
    Ok(String::new())
}

/// Starts the process that thaws the cgroup when it contains another supervisor than the first.
fn fork_thaw() -> io::Result<()> {
    if let Fork::Child(child) = fork_into(File::open(cgroup::MOUNT)?)? {
        let mut first = None;
        loop {
            let now = fs::read_to_string([SUPERVISORS, "/cgroup.procs"].concat()).unwrap_or_default();
            if !now.is_empty() && first.get_or_insert_with(|| now.clone()) != &now {
                fs::write([SUPERVISORS, "/cgroup.freeze"].concat(), "0").unwrap_or_default();
                child.exit(0)
            }
            let pause = Timespec { tv_sec: 0, tv_nsec: CHECK_MS * 1_000_000 };
            rustix::event::poll(&mut [], Some(&pause)).unwrap_or_default();
        }
    }
    Ok(())
}

/// Starts the process that sends signals. It listens before the boot goes on.
fn fork_sender() -> io::Result<()> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(SENDER)?)?;
    if let Fork::Child(child) = fork_into(File::open(cgroup::MOUNT)?)? {
        for client in listener.incoming() {
            // A client that disconnects receives no response.
            client.and_then(respond).unwrap_or_default();
        }
        child.exit(0)
    }
    Ok(())
}

/// Makes the machine's processes visible to services, each of which sees only its own otherwise.
fn show_processes() -> io::Result<()> {
    std::fs::create_dir(PROCESSES)?;
    Ok(rustix::mount::mount_bind("/proc", PROCESSES)?)
}

fn respond(mut client: UnixStream) -> io::Result<()> {
    let mut request = String::new();
    client.read_to_string(&mut request)?;
    let (pid, action) = request.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let pid = Pid::from_raw(pid.parse().map_err(io::Error::other)?).ok_or(Errno::SRCH)?;
    let response = if action == "descriptors" { descriptors(pid)? } else { send(pid, action)? };
    client.write_all(response.as_bytes())
}

fn send(pid: Pid, number: &str) -> io::Result<String> {
    let sent = signal::send(pid, number.parse().map_err(io::Error::other)?);
    Ok(sent.err().and_then(|error| error.raw_os_error()).unwrap_or(0).to_string())
}

fn descriptors(pid: Pid) -> io::Result<String> {
    let links = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))?;
    let targets = links.map(|link| Ok(format!("{}\n", fs::read_link(link?.path())?.display())));
    targets.collect()
}

/// Runs after every other stage: the supervisor is running.
#[expect(clippy::panic, reason = "the effect of a panic of PID 1 is what is tested")]
fn late(_: &mut Boot) -> Result<String, BootError> {
    match trial().as_str() {
        "panic-late" => panic!("a \"quoted\" reason\nof two lines"),
        "signals" => show_processes().map_err(|error| BootError::Path(PROCESSES, error))?,
        _ => {}
    }
    Ok(String::new())
}
