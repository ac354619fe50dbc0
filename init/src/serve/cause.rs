//! Why a process died of a signal.
//!
//! Its law: it says what the kernel recorded, and "sent" where it recorded nothing.

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

/// The kernel's log, a record at each read (`Documentation/ABI/testing/dev-kmsg`).
const LOG: &str = "/dev/kmsg";

/// Bytes of the longest record (`PRINTKRB_RECORD_MAX` and its prefix, `kernel/printk/internal.h`).
const RECORD: usize = 4096;

/// Most records looked at: those of the whole log buffer of 64 KiB, which nothing can make longer.
const MAX_RECORDS: usize = 2048;

/// The cause of the death by `signal` of process `pid` in `group`.
pub(super) fn of(signal: u8, pid: u32, group: Option<&Cgroup>) -> Cause {
    match signal {
        // Groups are made anew for each process and die as a whole (`memory.oom.group`), so any count is about this death.
        SIGKILL if group.is_some_and(|group| group.oom_kills() > 0) => Cause::OutOfMemory,
        SIGSYS => Cause::Seccomp(refused_call(pid)),
        _ => Cause::Sent,
    }
}

/// The name of the system call that `pid` died of. With `kernel.print-fatal-signals` the kernel logs the registers of a
/// process that dies of such a signal, and with a filter's refusal among them the number of the call.
fn refused_call(pid: u32) -> Option<String> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let mut log = File::options().read(true).custom_flags(flags).open(LOG).ok()?;
    let mut trace = Trace::new(pid);
    let mut record = [0; RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(n) => trace.read(&String::from_utf8_lossy(record.get(..n).unwrap_or_default())),
            // Overwritten while it was read: the next read goes on with the oldest there is.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    trace.call.map(syscalls::name)
}

/// Reads a log for the registers of one process. Its records come in a row:
///
/// ```text
/// …: potentially unexpected fatal signal 31.
/// CPU: 0 UID: 1000 PID: 82 Comm: web Not tainted …
/// RIP: 0033:0x7f… RSP: 002b:00007ffd… EFLAGS: 00000246 ORIG_RAX: 0000000000000029
/// ```
struct Trace {
    owner: String,
    inside: bool,
    call: Option<u64>,
}

impl Trace {
    fn new(pid: u32) -> Self {
        Self { owner: format!(" PID: {pid} "), inside: false, call: None }
    }

    fn read(&mut self, record: &str) {
        let Some((_, text)) = record.split_once(';') else { return };
        if text.starts_with("CPU: ") {
            self.inside =
                text.split(" Comm: ").next().is_some_and(|text| format!("{text} ").contains(&self.owner));
        } else if let Some(number) = text.split("ORIG_RAX: ").nth(1).filter(|_| self.inside) {
            let digits = number.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
            self.call = u64::from_str_radix(digits, 16).ok();
            self.inside = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records as a 6.12 kernel writes them.
    const RECORDS: [&str; 4] = [
        "6,310,2871,-;/bin/probe: probe: potentially unexpected fatal signal 31.\n",
        "4,311,2872,-;CPU: 0 UID: 1000 PID: 82 Comm: probe Not tainted 6.12.0-cloister #1\n",
        "4,312,2873,-;RIP: 0033:0x40bf1d\n",
        "4,313,2874,-;RSP: 002b:00007ffc7a4b EFLAGS: 00000246 ORIG_RAX: 0000000000000029\n",
    ];

    fn call(pid: u32, records: &[&str]) -> Option<u64> {
        let mut trace = Trace::new(pid);
        for record in records {
            trace.read(record);
        }
        trace.call
    }

    #[test]
    fn the_refused_call_is_found_by_process() {
        assert_eq!(call(82, &RECORDS), Some(41));
        assert_eq!(call(8, &RECORDS), None);
        assert_eq!(call(182, &RECORDS), None);
    }

    #[test]
    fn a_process_cannot_pass_for_another_by_its_name() {
        let liar = "4,311,2872,-;CPU: 0 UID: 1000 PID: 83 Comm:  PID: 82 Comm: x Not tainted 6.12.0\n";
        assert_eq!(call(82, &[liar, RECORDS[3]]), None);
    }

    #[test]
    fn the_last_death_of_a_number_counts() {
        let later = RECORDS[3].replace("29", "65");
        let records = [RECORDS[1], RECORDS[3], RECORDS[1], later.as_str()];
        assert_eq!(call(82, &records), Some(0x65));
    }

    #[test]
    fn a_kill_without_a_record_was_sent() {
        assert_eq!(of(SIGKILL, 1, None), Cause::Sent);
        assert_eq!(of(15, 1, None), Cause::Sent);
    }
}
