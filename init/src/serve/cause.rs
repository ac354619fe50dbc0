//! Why a process was killed by a signal.
//!
//! Invariant: it reports what the kernel recorded, and "sent" if it recorded nothing.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use cloister_wire::control::Cause;
use rustix::fs::OFlags;

use super::syscalls;
use crate::cgroup::Cgroup;

/// `SIGKILL` and `SIGSYS` of signal(7).
const SIGKILL: u8 = 9;
/// See [`SIGKILL`].
const SIGSYS: u8 = 31;

/// The kernel's log, one record per read (`Documentation/ABI/testing/dev-kmsg`).
const LOG: &str = "/dev/kmsg";

/// Bytes of the longest record (`PRINTKRB_RECORD_MAX` and its prefix, `kernel/printk/internal.h`).
const RECORD: usize = 4096;

/// Maximum number of records read: those of the whole log buffer of 64 KiB, which cannot grow.
const MAX_RECORDS: usize = 2048;

/// The cause of the death by `signal` of process `pid`, the main process of `group`. For a process without a group, an orphan
/// that init reaps, it is not determined: a service that lets many of them die must not cause a search of the log for each.
pub(super) fn of(signal: u8, pid: u32, group: Option<&Cgroup>) -> Cause {
    match signal {
        // Groups are created for each process and are killed as a whole (`memory.oom.group`), so any count concerns this death.
        SIGKILL if group.is_some_and(|group| group.oom_kills() > 0) => Cause::OutOfMemory,
        SIGSYS if group.is_some() => match search_log(pid) {
            Death::Sent => Cause::Sent,
            Death::Refused(call) => Cause::Seccomp(Some(syscalls::name(call))),
            Death::Unknown => Cause::Seccomp(None),
        },
        _ => Cause::Sent,
    }
}

/// The cause of a death by `SIGSYS` according to the kernel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Not recorded, as on an architecture whose log does not contain the number of the call.
    Unknown,
    /// No call was refused.
    Sent,
    /// A filter refused the call of this number.
    Refused(u64),
}

/// The cause of death of `pid`. With `kernel.print-fatal-signals` the kernel logs the registers of a process that dies of such
/// a signal; if a filter refused a call, they contain its number.
fn search_log(pid: u32) -> Death {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let Ok(mut log) = File::options().read(true).custom_flags(flags).open(LOG) else { return Death::Unknown };
    let mut trace = Trace::new(pid);
    let mut record = [0; RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(n) => trace.read(&String::from_utf8_lossy(record.get(..n).unwrap_or_default())),
            // Overwritten while it was read: the next read continues with the oldest record.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    trace.death
}

/// Searches a log for the registers of one process. Its records are consecutive:
///
/// ```text
/// …: potentially unexpected fatal signal 31.
/// CPU: 0 UID: 1000 PID: 82 Comm: web Not tainted …
/// RIP: 0033:0x7f… RSP: 002b:00007ffd… EFLAGS: 00000246 ORIG_RAX: 0000000000000029
/// RAX: 0000000000000029 RBX: …
/// ```
///
/// If a filter refuses a call, the kernel puts the call's number back into the register of the result (`syscall_rollback`,
/// `kernel/seccomp.c`). If the signal was sent, that register has another value, or the process was not in a call.
struct Trace {
    owner: String,
    inside: bool,
    call: Option<u64>,
    death: Death,
}

impl Trace {
    fn new(pid: u32) -> Self {
        Self { owner: format!(" PID: {pid} "), inside: false, call: None, death: Death::Unknown }
    }

    fn read(&mut self, record: &str) {
        let Some((_, text)) = record.split_once(';') else { return };
        if text.starts_with("CPU: ") {
            let before_name = text.split(" Comm: ").next();
            self.inside = before_name.is_some_and(|text| format!("{text} ").contains(&self.owner));
            self.call = None;
        } else if self.inside && text.starts_with("RAX: ") {
            let result = register(text, "RAX: ");
            self.death = match self.call {
                Some(call) if result == Some(call) => Death::Refused(call),
                _ => Death::Sent,
            };
            self.inside = false;
        } else if self.inside {
            self.call = self.call.or_else(|| register(text, "ORIG_RAX: "));
        }
    }
}

/// The hexadecimal number after `name`.
fn register(text: &str, name: &str) -> Option<u64> {
    let digits = text.split(name).nth(1)?.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records as a 6.12 kernel writes them.
    const RECORDS: [&str; 5] = [
        "6,310,2871,-;/bin/probe: probe: potentially unexpected fatal signal 31.\n",
        "4,311,2872,-;CPU: 0 UID: 1000 PID: 82 Comm: probe Not tainted 6.12.0-cloister #1\n",
        "4,312,2873,-;RIP: 0033:0x40bf1d\n",
        "4,313,2874,-;RSP: 002b:00007ffc7a4b EFLAGS: 00000246 ORIG_RAX: 0000000000000029\n",
        "4,314,2875,-;RAX: 0000000000000029 RBX: 0000000000000000 RCX: 000000000040bf1d\n",
    ];

    fn death(pid: u32, records: &[&str]) -> Death {
        let mut trace = Trace::new(pid);
        for record in records {
            trace.read(record);
        }
        trace.death
    }

    #[test]
    fn the_refused_call_is_found_by_process() {
        assert_eq!(death(82, &RECORDS), Death::Refused(41));
        assert_eq!(death(8, &RECORDS), Death::Unknown);
        assert_eq!(death(182, &RECORDS), Death::Unknown);
    }

    #[test]
    fn a_signal_that_was_sent_is_not_a_refused_call() {
        let in_a_call = RECORDS[4].replacen("29", "00", 1);
        assert_eq!(death(82, &[RECORDS[1], RECORDS[3], &in_a_call]), Death::Sent);
        assert_eq!(death(82, &[RECORDS[1], RECORDS[2], RECORDS[4]]), Death::Sent);
    }

    #[test]
    fn a_process_name_cannot_imitate_another_process() {
        let imitation = "4,311,2872,-;CPU: 0 UID: 1000 PID: 83 Comm:  PID: 82 Comm: x Not tainted 6.12.0\n";
        assert_eq!(death(82, &[imitation, RECORDS[3], RECORDS[4]]), Death::Unknown);
    }

    #[test]
    fn the_latest_death_of_a_process_number_counts() {
        let (call, result) = (RECORDS[3].replace("29", "65"), RECORDS[4].replacen("29", "65", 1));
        let records = [RECORDS[1], RECORDS[3], RECORDS[4], RECORDS[1], &call, &result];
        assert_eq!(death(82, &records), Death::Refused(0x65));
    }

    #[test]
    fn the_log_is_not_searched_for_an_orphan() {
        assert_eq!(of(SIGSYS, 1, None), Cause::Sent);
    }

    #[test]
    fn a_kill_without_a_record_counts_as_sent() {
        assert_eq!(of(SIGKILL, 1, None), Cause::Sent);
        assert_eq!(of(15, 1, None), Cause::Sent);
    }
}
