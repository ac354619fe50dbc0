//! Why a process died of a signal.
//!
//! Its law: it says what the kernel recorded, and "sent" where it recorded nothing.

use cloister_wire::control::Cause;

use crate::cgroup::Cgroup;

/// `SIGKILL` and `SIGSYS` of signal(7).
const SIGKILL: u8 = 9;
/// See [`SIGKILL`].
const SIGSYS: u8 = 31;

/// The cause of the death by `signal` of a process in `group`.
pub(super) fn of(signal: u8, _pid: u32, group: Option<&Cgroup>) -> Cause {
    match signal {
        // Groups are made anew for each process and die as a whole (`memory.oom.group`), so any count is about this death.
        SIGKILL if group.is_some_and(|group| group.oom_kills() > 0) => Cause::OutOfMemory,
        SIGSYS => Cause::Seccomp(None),
        _ => Cause::Sent,
    }
}
