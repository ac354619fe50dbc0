//! The one loop of PID 1: find out what happened, let [`crate::hold`] decide, perform it.
//!
//! Its law: one thread, one wait for everything, and nothing performed here waits for a peer. Events are taken in an order
//! that keeps the story straight: a child's verdict before its end, its end before the emptiness of its cgroup.

mod buttons;
mod cause;
mod perform;
mod syscalls;
mod watch;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use cloister_sys::platform::Platform;
use cloister_sys::signal::Signals;
use rustix::process::{Resource, Rlimit};

use self::buttons::Buttons;
use crate::boot::{BootError, Machine};
use crate::cgroup::{self, Cgroup, Cgroups};
use crate::channel::Channel;
use crate::console::Console;
use crate::hold::{Event, State};
use crate::spawn::{Main, Report, Verdict};

/// Descriptors PID 1 can have: three pipes, a socket, a process and two files of the cgroup for each of 128 holdings, 256 that are
/// kept by name, those of a message that has arrived, and init's own few: 1,400 of them; the kernel's default is 1024.
const OPEN_FILES: u64 = 4096;

/// How long a supervisor may take from the fork to its program. It takes milliseconds, under translation and load a second; what
/// takes longer hangs, and another start may not.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The out-of-memory killer's "never" (proc(5), `oom_score_adj`).
const NEVER_KILLED: &str = "-1000";

/// PID 1 while it holds.
#[derive(Debug)]
pub struct Holder {
    state: State,
    console: Console,
    groups: Cgroups,
    signals: Signals,
    buttons: Buttons,
    channel: Option<Channel>,
    /// The first supervisor, started while the boot goes on.
    first: Option<Event>,
    supervisor: Option<Candidate>,
    /// When, since boot, a supervisor is to be forked again.
    start_at: Option<Duration>,
    handles: Vec<Handle>,
    stash: Vec<(String, Rc<OwnedFd>)>,
    writable_bytes: u64,
    more_to_reap: bool,
}

/// A process on its way to become the supervisor.
#[derive(Debug)]
struct Candidate {
    pid: u32,
    verdict: Verdict,
    /// When, since boot, it is late.
    until: Duration,
}

/// What belongs to a holding and is not a matter of deciding.
#[derive(Debug)]
struct Handle {
    name: String,
    /// The first process of its namespace, which init reaps.
    pid: u32,
    /// What the first process is the parent of, where it is ours and both have become their programs.
    main: Option<Main>,
    report: Option<Report>,
    verdict: Option<Verdict>,
    output: Vec<Rc<OwnedFd>>,
    group: Cgroup,
}

/// Stage `hold`: everything that holding processes needs, and the first supervisor. It is welcomed at stage `serve`, with the
/// stages that were done meanwhile.
pub fn hold(machine: &mut Machine) -> Result<String, BootError> {
    std::fs::write("/proc/self/oom_score_adj", NEVER_KILLED)
        .map_err(|error| BootError::Path("/proc/self/oom_score_adj", error))?;
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    rustix::process::setrlimit(Resource::Nofile, files)
        .map_err(|error| BootError::Kernel("raising the limit of open files", error.into()))?;
    let signals = Signals::take_all().map_err(|error| BootError::Kernel("taking the signals", error))?;
    let groups = Cgroups::set_up(Path::new(cgroup::MOUNT)).map_err(BootError::Cgroup)?;
    let mut holder = Box::new(Holder {
        state: State::new(Platform::Virtual.name(), Vec::new()),
        console: Console::new(),
        groups,
        signals,
        buttons: Buttons::find(),
        channel: None,
        first: None,
        supervisor: None,
        start_at: None,
        handles: Vec::new(),
        stash: Vec::new(),
        writable_bytes: 0,
        more_to_reap: false,
    });
    holder.first = Some(holder.start_supervisor());
    machine.holder = Some(holder);
    Ok(String::new())
}

/// Stage `serve`: the supervisor is welcomed, and runs its program.
pub fn serve(machine: &mut Machine) -> Result<String, BootError> {
    let Some(holder) = &mut machine.holder else { return Ok(String::new()) };
    let platform = machine.platform.unwrap_or(Platform::Virtual);
    holder.state = State::new(platform.name(), machine.done.clone());
    holder.console.open();
    holder.begin();
    while holder.supervisor.is_some() {
        holder.turn().map_err(|error| BootError::Kernel("waiting for the supervisor", error))?;
    }
    Ok(String::new())
}
