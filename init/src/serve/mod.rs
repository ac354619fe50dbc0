//! The main loop of PID 1: collect events, let [`crate::hold`] decide, perform the actions.
//!
//! Invariant: one thread, one `poll` for everything, and no action waits for a peer. Events are handled in causal order: a
//! child's verdict before its exit, its exit before the empty cgroup.

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
use crate::boot::{Boot, BootError};
use crate::cgroup::{self, Cgroup, Cgroups};
use crate::channel::Channel;
use crate::console::Console;
use crate::hold::{Event, HoldState};
use crate::spawn::{Main, Report, Verdict};

/// Maximum number of PID 1's descriptors. It needs up to 1,400: three pipes, a socket, a process and two files of the cgroup
/// for each of 128 holdings, 256 stashed ones, those of a received message, and its own few; the kernel's default is 1024.
const OPEN_FILES: u64 = 4096;

/// Timeout of the supervisor from fork to exec. It takes milliseconds, under translation and load a second; if it takes longer,
/// it hangs, and another start may succeed.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The out-of-memory killer's "never" (proc(5), `oom_score_adj`).
const NEVER_KILLED: &str = "-1000";

/// PID 1 while it holds processes.
#[derive(Debug)]
pub struct Holder {
    state: HoldState,
    console: Console,
    groups: Cgroups,
    signals: Signals,
    buttons: Buttons,
    channel: Option<Channel>,
    /// The start of the first supervisor, which overlaps the rest of the boot.
    first: Option<Event>,
    supervisor: Option<Candidate>,
    /// When, since boot, the fork of a supervisor is to be retried.
    start_at: Option<Duration>,
    handles: Vec<Handle>,
    stash: Vec<(String, Rc<OwnedFd>)>,
    writable_bytes: u64,
    more_to_reap: bool,
}

/// A forked supervisor that has not executed its program yet.
#[derive(Debug)]
struct Candidate {
    pid: u32,
    verdict: Verdict,
    /// When, since boot, it times out.
    until: Duration,
}

/// The resources of a holding, which decisions do not depend on.
#[derive(Debug)]
struct Handle {
    name: String,
    /// The first process of its namespace, which init reaps.
    pid: u32,
    /// The child of the first process, if that is `first` and both run their programs.
    main: Option<Main>,
    report: Option<Report>,
    verdict: Option<Verdict>,
    output: Vec<Rc<OwnedFd>>,
    group: Cgroup,
}

/// Stage `hold`: prepares to hold processes, and forks the first supervisor. It is welcomed at stage `serve`, with the stages
/// completed by then.
pub fn hold(boot: &mut Boot) -> Result<String, BootError> {
    std::fs::write("/proc/self/oom_score_adj", NEVER_KILLED)
        .map_err(|error| BootError::Path("/proc/self/oom_score_adj", error))?;
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    rustix::process::setrlimit(Resource::Nofile, files)
        .map_err(|error| BootError::Kernel("cannot raise the limit of open files", error.into()))?;
    let signals = Signals::take_all().map_err(|error| BootError::Kernel("cannot receive signals", error))?;
    let groups = Cgroups::set_up(Path::new(cgroup::MOUNT)).map_err(BootError::Cgroup)?;
    let mut holder = Box::new(Holder {
        state: HoldState::new(Platform::Virtual.name(), Vec::new()),
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
    boot.holder = Some(holder);
    Ok(String::new())
}

/// Stage `serve`: welcomes the supervisor, and waits until its program runs.
pub fn serve(boot: &mut Boot) -> Result<String, BootError> {
    let Some(holder) = &mut boot.holder else { return Ok(String::new()) };
    let platform = boot.platform.unwrap_or(Platform::Virtual);
    holder.state = HoldState::new(platform.name(), boot.done.clone());
    holder.console.open();
    holder.begin();
    while holder.supervisor.is_some() {
        holder.turn().map_err(|error| BootError::Kernel("cannot wait for the supervisor", error))?;
    }
    Ok(String::new())
}
