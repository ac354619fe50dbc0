//! The only shutdown path of the machine.
//!
//! Invariant: regardless of the reason, the machine shuts down here, within a deadline, and its final state is reported: to the
//! host over vsock if it cannot know it yet, and as one line on the console and in the kernel log,
//! `cloister: end {the state as JSON}`. The steps: kill, sync, unmount, print the final state, power off. No step can prevent
//! the next.

mod off;
mod vsock;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cloister_sys::platform::Platform;
use cloister_sys::process::{Fork, fork_into};
use cloister_sys::signal::Signals;
use cloister_wire::control::{FinishedStage, State};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::boot::Boot;
use crate::cgroup::{self, Cgroups};
use crate::{console, root};

/// For the whole shutdown. Then a process of its own powers the machine off, even if PID 1 is stuck: because a disk does not
/// sync or a console does not drain.
const DEADLINE: Duration = Duration::from_secs(8);

/// For killed processes to exit. Only one that is stuck in the kernel takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// For the host to connect and read the final state: it reconnects at least once a second while an enclave runs.
const HOST_LIMIT: Duration = Duration::from_secs(2);

/// For the console to accept a final line that is too long for the kernel's log.
const CONSOLE_LIMIT: Duration = Duration::from_secs(1);

/// What the host receives with the final state.
#[derive(Debug)]
struct Known {
    platform: &'static str,
    boot: Vec<FinishedStage>,
    supervisors: u32,
}

/// Global, because a panic hook has no access to anything else.
static KNOWN: Mutex<Known> =
    Mutex::new(Known { platform: Platform::Virtual.name(), boot: Vec::new(), supervisors: 0 });

/// Records how far the boot got, in case init has to report it.
pub fn remember_boot(boot: &Boot) {
    if let Ok(mut known) = KNOWN.try_lock() {
        known.platform = boot.platform.unwrap_or(Platform::Virtual).name();
        known.boot.clone_from(&boot.done);
    }
}

/// Records that a supervisor was started.
pub fn remember_supervisor() {
    if let Ok(mut known) = KNOWN.try_lock() {
        known.supervisors = known.supervisors.saturating_add(1);
    }
}

/// Shuts the machine down because `stage` failed.
pub fn fatal(stage: &str, error: &str) -> ! {
    let end = State::Fatal { stage: stage.to_owned(), error: error.to_owned() };
    stop();
    start_guard();
    let json = serde_json::to_string(&end).unwrap_or_default();
    // It stays locked if its user panicked: then the state is reported on the console only.
    if let Ok(known) = KNOWN.try_lock() {
        vsock::report(end, &known, HOST_LIMIT);
    }
    finish(&json)
}

/// Shuts the machine down in a state that the host already knows, given as JSON.
pub fn in_state(state: &str) -> ! {
    stop();
    start_guard();
    finish(state)
}

/// The rest of the shutdown, once all processes are gone.
fn finish(state: &str) -> ! {
    // This blocks if a disk does not respond: the guard exists for that.
    rustix::fs::sync();
    for mount in [root::ROOT, root::WRITABLE, root::LOWER] {
        // It fails if the boot stopped before the mount.
        rustix::mount::unmount(mount, UnmountFlags::DETACH).ok();
    }
    print_final(state);
    off::power_off()
}

/// Makes a panic of PID 1 shut the machine down here. A panic of a child ends only the child.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if rustix::process::getpid() == Pid::INIT {
            fatal("init", &panic.to_string());
        }
    }));
}

/// Kills all processes and waits until they have exited.
fn stop() {
    if let Some(cgroups) = Cgroups::find(cgroup::MOUNT.as_ref()) {
        cgroups.kill_all();
    }
    // kill(-1): processes outside our cgroups. There should be none.
    rustix::process::kill_process_group(Pid::INIT, Signal::KILL).ok();
    let Ok(signals) = Signals::take_all() else { return };
    let end = Instant::now() + KILL_LIMIT;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
                let mut child = [PollFd::new(&signals, PollFlags::IN)];
                if !matches!(rustix::event::poll(&mut child, left.as_ref()), Ok(1..)) {
                    return;
                }
                while let Ok(Some(_)) = signals.next() {}
            }
            Err(_) => return,
        }
    }
}

/// Starts a process that powers the machine off when the deadline has passed.
fn start_guard() {
    let Ok(directory) = File::open(cgroup::MOUNT) else { return };
    if let Ok(Fork::Child(_)) = fork_into(directory) {
        let deadline = Timespec::try_from(DEADLINE).ok();
        // Only sleeps.
        rustix::event::poll(&mut [], deadline.as_ref()).ok();
        off::power_off()
    }
}

fn print_final(state: &str) {
    // One line, also if the JSON contains line breaks.
    let line = format!("cloister: end {state}").replace(['\r', '\n'], " ");
    if write_to_kernel_log(&line).is_err() {
        console::print_final(&line, CONSOLE_LIMIT);
    }
}

/// As an error (level 3), which the kernel prints on its console even when it is `quiet`, at once and without interrupts:
/// the most reliable output of a failing machine. The log accepts lines of up to 1024 bytes.
fn write_to_kernel_log(line: &str) -> io::Result<()> {
    let mut log = File::options().write(true).open("/dev/kmsg")?;
    log.write_all(format!("<3>{line}\n").as_bytes())
}
