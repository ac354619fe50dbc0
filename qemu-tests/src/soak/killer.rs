//! The killer: a service that runs as root, kills what the host orders, and counts what it sees.
//!
//! Invariant: an order is carried out once, regardless of what happens to the answer, and a process is killed only if it is the
//! main process of the named service. The counts are the kernel's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::numbered_output::Note;
use crate::guest::{MACHINE, find_process, find_servant, send_from_outside, serve_http};

/// The port of the killer.
const PORT: u16 = 8081;

/// What the killer has done, and the resources of init, the supervisor and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Census {
    /// Kills by name.
    pub(super) kills: BTreeMap<String, u64>,
    /// Processes that have exited and were not reaped.
    pub(super) zombies: u64,
    /// PID 1.
    pub(super) init: Process,
    /// The supervisor; zeros while none runs.
    pub(super) supervisor: Process,
    /// The gateway, likewise.
    pub(super) gateway: Process,
    /// Memory in kibibytes that is neither free, nor a cache, nor a file in memory: used by the kernel and the programs.
    pub(super) used_kib: u64,
    /// Files in memory in kibibytes, including the log rings.
    pub(super) files_kib: u64,
}

/// One process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its open descriptors.
    pub(super) descriptors: u64,
    /// Its resident memory in kibibytes.
    pub(super) resident_kib: u64,
}

/// The orders so far.
#[derive(Debug, Default)]
struct Orders {
    last: u64,
    kills: BTreeMap<String, u64>,
    /// The process last killed for each name: one that dies slowly is not killed twice.
    dead: BTreeMap<String, Pid>,
}

/// Serves the host: `/kill/NUMBER/NAME,NAME…` and `/census`.
pub(super) fn serve() -> io::Result<()> {
    let orders = Mutex::new(Orders::default());
    serve_http(PORT, |path| {
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, names)) = path.strip_prefix("/kill/").and_then(|rest| rest.split_once('/')) {
            orders.carry_out(number.parse().unwrap_or_default(), names);
        }
        serde_json::to_string(&Census::take(&orders.kills)).unwrap_or_default()
    })
}

impl Orders {
    fn carry_out(&mut self, number: u64, names: &str) {
        if number <= self.last {
            return;
        }
        self.last = number;
        for name in names.split(',') {
            let found = match name {
                super::SUPERVISOR => find_process("supervisor"),
                super::GATEWAY => find_servant(name),
                name => service(name),
            };
            let Some(pid) = found.ok().filter(|pid| self.dead.get(name) != Some(pid)) else { continue };
            if send_from_outside(pid, Signal::KILL.as_raw()).is_ok() {
                self.dead.insert(name.to_owned(), pid);
                let count = self.kills.entry(name.to_owned()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
}

/// The main process that the service noted, if it is alive and still in the service's cgroup.
fn service(name: &str) -> io::Result<Pid> {
    let pid = i32::try_from(Note::of(name).pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    let folder = format!("{MACHINE}/{}", pid.as_raw_nonzero());
    let is_member = fs::read_to_string(format!("{folder}/cgroup"))?.trim_end().ends_with(&format!("/{name}"));
    let is_alive = state(&fs::read_to_string(format!("{folder}/stat"))?) != Some('Z');
    if is_member && is_alive { Ok(pid) } else { Err(io::ErrorKind::NotFound.into()) }
}

impl Census {
    fn take(kills: &BTreeMap<String, u64>) -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |key| field(&memory, key);
        let supervisor = find_process("supervisor").map(|pid| Process::measure(pid.as_raw_nonzero().get()));
        let gateway = find_servant(super::GATEWAY).map(|pid| Process::measure(pid.as_raw_nonzero().get()));
        Self {
            kills: kills.clone(),
            zombies: zombies(),
            init: Process::measure(1),
            supervisor: supervisor.unwrap_or_default(),
            gateway: gateway.unwrap_or_default(),
            used_kib: kib("MemTotal").saturating_sub(kib("MemAvailable")).saturating_sub(kib("Shmem")),
            files_kib: kib("Shmem"),
        }
    }
}

impl Process {
    fn measure(pid: i32) -> Self {
        let status = fs::read_to_string(format!("{MACHINE}/{pid}/status")).unwrap_or_default();
        // The size of this directory is the number of descriptors since Linux 6.2 (fs/proc/fd.c, proc_fd_getattr).
        let descriptors = fs::metadata(format!("{MACHINE}/{pid}/fd")).map_or(0, |folder| folder.size());
        Self { descriptors, resident_kib: field(&status, "VmRSS") }
    }
}

/// The number after `key:` in one of the kernel's files.
fn field(text: &str, key: &str) -> u64 {
    let row = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == key);
    row.and_then(|(_, value)| value.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn zombies() -> u64 {
    let entries = fs::read_dir(MACHINE).into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    u64::try_from(stats.filter(|stat| state(stat) == Some('Z')).count()).unwrap_or(u64::MAX)
}

/// The state in `/proc/PID/stat`, after the name in parentheses, which may contain parentheses.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_parsed() {
        assert_eq!(state("7 (a) Z (b) Z 1 7 7"), Some('Z'));
        assert_eq!(state("7 (Z) S 1 7 7"), Some('S'));
        assert_eq!(field("MemTotal:         512 kB\nShmem:  3 kB\n", "Shmem"), 3);
    }

    #[test]
    fn an_order_is_carried_out_once() {
        let mut orders = Orders::default();
        orders.carry_out(2, "unknown");
        orders.carry_out(1, "unknown");
        assert_eq!((orders.last, orders.kills.len()), (2, 0));
    }
}
