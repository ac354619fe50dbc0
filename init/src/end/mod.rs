//! The one exit door of the machine.
//!
//! Its law: whatever happened, the machine ends here, within a deadline, and its last state is told: to the host over
//! vsock where it cannot know yet, and as one line on the console and in the kernel log,
//! `cloister: end {the state as JSON}`. Stop, sync, unmount, last words, power off; no step is allowed to keep the next
//! from happening.

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

/// The whole way through the door. Past it the machine is switched off from a process of its own, whatever PID 1 is stuck
/// in: a disk that does not sync, a console that does not drain.
const DEADLINE: Duration = Duration::from_secs(8);

/// For killed processes to be gone. Only one that is stuck in the kernel takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// For the host to dial in and read the last state: it dials again at least once a second while an enclave runs.
const HOST_LIMIT: Duration = Duration::from_secs(2);

/// For the console to take last words that are too long for the kernel's log.
const CONSOLE_LIMIT: Duration = Duration::from_secs(1);

/// What the host is told beside the last state.
#[derive(Debug)]
struct Known {
    platform: &'static str,
    boot: Vec<FinishedStage>,
    supervisors: u32,
}

/// Kept here, out of everybody's hands, because a panic takes nothing along.
static KNOWN: Mutex<Known> =
    Mutex::new(Known { platform: Platform::Virtual.name(), boot: Vec::new(), supervisors: 0 });

/// Remembers how far the boot got, should init have to tell it.
pub fn remember_boot(boot: &Boot) {
    if let Ok(mut known) = KNOWN.try_lock() {
        known.platform = boot.platform.unwrap_or(Platform::Virtual).name();
        known.boot.clone_from(&boot.done);
    }
}

/// Remembers that a supervisor was started.
pub fn remember_supervisor() {
    if let Ok(mut known) = KNOWN.try_lock() {
        known.supervisors = known.supervisors.saturating_add(1);
    }
}

/// Ends the machine because of `stage`.
pub fn fatal(stage: &str, error: &str) -> ! {
    let end = State::Fatal { stage: stage.to_owned(), error: error.to_owned() };
    stop();
    start_guard();
    let words = serde_json::to_string(&end).unwrap_or_default();
    // Somebody who panicked with it in hand keeps it: then the console has to be enough.
    if let Ok(known) = KNOWN.try_lock() {
        vsock::tell(end, &known, HOST_LIMIT);
    }
    leave(&words)
}

/// Ends the machine in a state that the host knows already, given as JSON.
pub fn in_state(state: &str) -> ! {
    stop();
    start_guard();
    leave(state)
}

/// The way out, once nothing runs any more.
fn leave(state: &str) -> ! {
    // With a disk that does not answer this takes long: the guard is there for that.
    rustix::fs::sync();
    for mount in [root::ROOT, root::WRITABLE, root::LOWER] {
        // What was never mounted cannot be unmounted.
        rustix::mount::unmount(mount, UnmountFlags::DETACH).ok();
    }
    last_words(state);
    off::switch_off()
}

/// Makes a panic end the machine by this door. A child of PID 1 that panics only ends itself.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if rustix::process::getpid() == Pid::INIT {
            fatal("init", &panic.to_string());
        }
    }));
}

/// Kills everything and waits until it is gone.
fn stop() {
    if let Some(cgroups) = Cgroups::find(cgroup::MOUNT.as_ref()) {
        cgroups.kill_all();
    }
    // kill(-1): whatever is in no cgroup of ours. There should be nothing.
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

/// A process that switches the machine off when the deadline has passed.
fn start_guard() {
    let Ok(folder) = File::open(cgroup::MOUNT) else { return };
    if let Ok(Fork::Child(_)) = fork_into(folder) {
        let deadline = Timespec::try_from(DEADLINE).ok();
        // Waits for nothing but the time.
        rustix::event::poll(&mut [], deadline.as_ref()).ok();
        off::switch_off()
    }
}

fn last_words(state: &str) {
    // One line, whatever white space the JSON has between its parts.
    let line = format!("cloister: end {state}").replace(['\r', '\n'], " ");
    if into_kernel_log(&line).is_err() {
        console::last_words(&line, CONSOLE_LIMIT);
    }
}

/// As an error (level 3), which the kernel puts on its console even when it is `quiet`, at once and without interrupts:
/// the safest way out of a machine that is in trouble. The log takes lines of up to 1024 bytes.
fn into_kernel_log(line: &str) -> io::Result<()> {
    let mut log = File::options().write(true).open("/dev/kmsg")?;
    log.write_all(format!("<3>{line}\n").as_bytes())
}
