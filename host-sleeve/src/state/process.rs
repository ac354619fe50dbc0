//! Processes, identified even if the kernel has reused a process number.
//!
//! Invariant: a process is identified by its number *and* its start time, within one boot of the host; a process is pinned by a
//! pidfd and checked before it is signalled.

use std::fs;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How long a process may take to exit after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The identity of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a process with its number and start time")]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the host's boot (`/proc/PID/stat`, field 22).
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process that has this number now, if there is one.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&text)? })
    }

    /// This process.
    pub(crate) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it is still running. A zombie is not: its parent has only not waited for it yet.
    pub(crate) fn exists(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_time(&stat) == Some(self.start) && !has_ended(&stat)
    }

    /// Waits until it has exited, no longer than `limit`. Returns whether it has.
    pub(crate) fn wait(self, limit: Duration) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pinned = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(pidfd) = pinned
            && self.exists()
        {
            let limit = limit.try_into().ok();
            // A pidfd becomes readable when its process exits (pidfd_open(2)).
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], limit.as_ref()).unwrap_or_default();
        }
        !self.exists()
    }

    /// Kills it; if it is a sleeve, the kernel then kills its machine. Returns whether it has exited.
    pub(crate) fn end(self) -> bool {
        self.kill();
        self.wait(END_LIMIT)
    }

    /// Sends SIGKILL to it, and to no other process. Returns whether it was running.
    pub(crate) fn kill(self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return false;
        };
        // The pidfd pins the process that has the number now; only after that is checking the start time conclusive.
        self.exists() && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
    }
}

/// Identifies this boot of the host: start times of processes are counted from it (random(4), `boot_id`).
pub(crate) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Whether a `stat` line belongs to a process that has exited: field 3 is zombie or dead.
fn has_ended(stat: &str) -> bool {
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X', 'x']))
}

/// Field 22 of a `stat` line. The second field is the program's name in parentheses and may contain anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    // The name is followed by field 3.
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_start_time_is_found_after_any_program_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        assert_eq!(start_time(&format!("7 (a) b (c) {}", fields.join(" "))), Some(22));
        assert_eq!(start_time("7 (a"), None);
    }

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.exists());
        let other = ProcessId { start: own.start + 1, ..own };
        assert!(!other.exists());
        assert!(!other.kill());
    }

    #[test]
    fn a_checked_process_is_killed() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert!(!process.wait(Duration::ZERO));
        assert!(process.kill());
        assert!(process.wait(Duration::from_mins(1)));
        assert!(!process.exists(), "a zombie is not running");
        assert!(!child.wait().unwrap().success());
    }
}
