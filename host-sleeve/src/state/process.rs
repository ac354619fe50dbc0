//! Processes, told apart even where the kernel has given a number again.
//!
//! Its law: a process is its number *and* its start time; nothing is signalled that was not checked after it was pinned.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Whether it still exists, a zombie included.
    pub(crate) fn exists(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends SIGKILL to it, and to nothing else. Answers whether it was there.
    pub(crate) fn kill(self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return false;
        };
        // The descriptor pins whoever has the number now: only then is the start time worth a look.
        self.exists() && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
    }
}

/// Field 22 of a `stat` line. The second field is the program's name in parentheses and may contain anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    // After the name comes field 3.
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
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
        assert!(ProcessId::of(child.id()).unwrap().kill());
        assert!(!child.wait().unwrap().success());
    }
}
