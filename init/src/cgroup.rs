//! Control groups, version 2: one for the supervisor, one for each held process and its descendants. Those of services have a
//! common limit; those of servants are outside it.
//!
//! Invariant: a limit is in force only if it reads back as written, and a group is killed as a whole (`cgroup.kill`), never by
//! a list of processes. The files are those of `Documentation/admin-guide/cgroup-v2.rst`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cloister_wire::hold::Limits;

/// Where version 2 is mounted in the enclave.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// The parent of the services' groups.
const HELD: &str = "cloister";

/// The parent of the servants' groups, outside the services' common limit.
const SERVANTS: &str = "servants";

/// The supervisor's group.
const SUPERVISOR: &str = "supervisor";

/// The controllers enabled for held groups, and whether each is required: without the first three no limit could be enforced.
const CONTROLLERS: [(&str, bool); 4] = [("memory", true), ("pids", true), ("cpu", true), ("io", false)];

/// The period of `cpu.max` in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Maximum bytes read from a control file: the files read here have a few lines each.
const MAX_FILE: u64 = 1024 * 1024;

/// Memory that services leave to others, in bytes: init and the supervisor use 3 MB of it when idle; the kernel's sockets and
/// page tables use the rest under load.
const RESERVED_BYTES: u64 = 16 * 1024 * 1024;

/// Processes and threads that services leave to others, in addition to those that run before the first service: kernel threads
/// that are started under load, the supervisor's own few, and the first process of a service that is about to start.
const RESERVED_PROCESSES: u64 = 256;

/// The maximum number of processes and threads of the machine, which the kernel derives from its memory.
const THREADS: &str = "/proc/sys/kernel/threads-max";

/// The maximum of `pids.max` (`PIDS_MAX`, `kernel/cgroup/pids.c`), to which stage `lockdown` also sets `kernel.pid_max`:
/// machines with more than half a terabyte may have more threads than process numbers.
const MAX_PROCESSES: u64 = 4_194_304;

/// The current number of them: after the slash in the fourth field (proc(5)).
const LOAD: &str = "/proc/loadavg";

/// The kernel's memory statistics.
const MEMINFO: &str = "/proc/meminfo";

/// The tree of groups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mount: PathBuf,
}

/// One group.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    events: File,
}

/// A limit that is not in force, or a group that cannot be created.
#[derive(Debug)]
pub struct CgroupError {
    /// The control file.
    pub path: PathBuf,
    /// The value written to it, if the error concerns one.
    pub wanted: Option<String>,
    /// What went wrong.
    pub error: io::Error,
}

impl std::fmt::Display for CgroupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wanted {
            Some(wanted) => write!(f, "{} = {wanted}: {}", self.path.display(), self.error),
            None => write!(f, "{}: {}", self.path.display(), self.error),
        }
    }
}

impl std::error::Error for CgroupError {}

impl Cgroups {
    /// Creates the tree below `mount`, with the controllers enabled for held groups.
    pub fn set_up(mount: &Path) -> Result<Self, CgroupError> {
        let available = read(&mount.join("cgroup.controllers"))?;
        let held = mount.join(HELD);
        enable_controllers(mount, &available)?;
        for directory in [&held, &mount.join(SERVANTS)] {
            create(directory)?;
            enable_controllers(directory, &available)?;
        }
        let all = processes(&read(Path::new(THREADS))?, &read(Path::new(LOAD))?);
        let path = held.join("pids.max");
        write(&path, &all.to_string()).map_err(|error| at(&path, error))?;
        let groups = Self { mount: mount.to_owned() };
        groups.limit_services(0)?;
        Ok(groups)
    }

    /// Limits all services together to the memory available now, less [`RESERVED_BYTES`] and `reserved` bytes. If a group
    /// reaches its limit, the kernel kills in it at once; if the machine runs out of memory, the kernel first evicts and
    /// rereads the pages of running programs, for minutes.
    pub fn limit_services(&self, reserved: u64) -> Result<(), CgroupError> {
        let meminfo = Path::new(MEMINFO);
        let available = available(&read(meminfo)?)
            .ok_or_else(|| at(meminfo, io::Error::other("no MemAvailable line")))?;
        let limit = available.saturating_sub(RESERVED_BYTES).saturating_sub(reserved).max(RESERVED_BYTES);
        let path = self.mount.join(HELD).join("memory.max");
        write(&path, &limit.to_string()).map_err(|error| at(&path, error))
    }

    /// The process limit of a service whose manifest sets none: half of the limit of all, so that a single service cannot
    /// prevent the others from starting processes.
    fn default_pids(&self) -> Result<u64, CgroupError> {
        let all = read(&self.mount.join(HELD).join("pids.max"))?;
        Ok(all.trim().parse().unwrap_or(MAX_PROCESSES) / 2)
    }

    /// The tree that an earlier [`Self::set_up`] created, if there is one.
    #[must_use]
    pub fn find(mount: &Path) -> Option<Self> {
        mount.join(HELD).is_dir().then(|| Self { mount: mount.to_owned() })
    }

    /// The supervisor's group, created if it does not exist.
    pub fn supervisor(&self) -> Result<Cgroup, CgroupError> {
        let path = self.mount.join(SUPERVISOR);
        if !path.exists() {
            create(&path)?;
        }
        Cgroup::open(path)
    }

    /// A new group for a held process, with its limits in force: a service's inside the services' common limit, a servant's
    /// outside it.
    ///
    /// Errors: `EEXIST` if the previous group of that name still exists.
    pub fn hold(&self, name: &str, servant: bool, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let path = self.mount.join(if servant { SERVANTS } else { HELD }).join(name);
        create(&path)?;
        let group = Cgroup::open(path)?;
        match self.default_pids().and_then(|pids| group.limit(limits, limits.pids.map_or(pids, u64::from))) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove()?;
                Err(error)
            }
        }
    }

    /// Kills every held process and the supervisor.
    pub fn kill_all(&self) {
        for directory in [HELD, SERVANTS, SUPERVISOR] {
            // Processes that cannot be killed here are killed with all others at shutdown.
            drop(write(&self.mount.join(directory).join("cgroup.kill"), "1"));
        }
    }
}

impl Cgroup {
    fn open(path: PathBuf) -> Result<Self, CgroupError> {
        let directory = File::open(&path).map_err(|error| at(&path, error))?;
        let events = path.join("cgroup.events");
        let events = File::open(&events).map_err(|error| at(&events, error))?;
        Ok(Self { path, directory, events })
    }

    fn limit(&self, limits: &Limits, pids: u64) -> Result<(), CgroupError> {
        // Half a service is not useful: if it runs out of memory, all of it is killed.
        self.set("memory.oom.group", "1")?;
        if let Some(bytes) = limits.memory {
            let whole_pages = bytes & !4095;
            self.set("memory.max", &whole_pages.to_string())?;
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = u64::from(millis).saturating_mul(CPU_PERIOD_US) / 1000;
            self.set("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        self.set("pids.max", &pids.to_string())
    }

    /// Writes a control file and reads it back.
    fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        let failed = |error| CgroupError { path: path.clone(), wanted: Some(value.to_owned()), error };
        write(&path, value).map_err(failed)?;
        let found = read(&path)?;
        if found.trim() == value {
            return Ok(());
        }
        Err(failed(io::Error::other(format!("reads {:?}", found.trim()))))
    }

    /// Kills every member at once.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.path.join("cgroup.kill");
        write(&path, "1").map_err(|error| at(&path, error))
    }

    /// Whether it has a member.
    pub fn is_populated(&mut self) -> Result<bool, CgroupError> {
        let mut text = String::new();
        let read = self.events.rewind().and_then(|()| self.events.read_to_string(&mut text));
        read.map_err(|error| at(&self.path.join("cgroup.events"), error))?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// How many processes of this group the out-of-memory killer has killed.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let events = read(&self.path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Removes the group, which must be empty.
    pub fn remove(self) -> Result<(), CgroupError> {
        fs::remove_dir(&self.path).map_err(|error| at(&self.path, error))
    }

    /// The directory into which a new member is forked.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its number, by which the kernel identifies it elsewhere: the directory's inode. 0, which no group has, if that cannot be
    /// read.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.directory.metadata().map(|found| found.ino()).unwrap_or_default()
    }

    /// Becomes ready (`POLLPRI`) when the group gets its first member or loses its last.
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn enable_controllers(directory: &Path, available: &str) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.subtree_control");
    let exists = |name: &str| available.split_whitespace().any(|word| word == name);
    if let Some((missing, _)) = CONTROLLERS.iter().find(|(name, required)| *required && !exists(name)) {
        let error = io::Error::other("controller not in this kernel");
        return Err(CgroupError { path, wanted: Some((*missing).to_owned()), error });
    }
    let changes: Vec<String> =
        CONTROLLERS.iter().filter(|(name, _)| exists(name)).map(|(name, _)| format!("+{name}")).collect();
    let value = changes.join(" ");
    write(&path, &value).map_err(|error| CgroupError { path, wanted: Some(value), error })
}

/// `MemAvailable` of proc(5), in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The process limit of all services together, from [`THREADS`] and [`LOAD`]. A value that cannot be read never lowers it to
/// nothing.
fn processes(threads_max: &str, load: &str) -> u64 {
    let all = threads_max.trim().parse().unwrap_or(MAX_PROCESSES).min(MAX_PROCESSES);
    let running = load.split(['/', ' ']).nth(4).and_then(|count| count.parse().ok()).unwrap_or(0);
    all.saturating_sub(running).saturating_sub(RESERVED_PROCESSES).max(RESERVED_PROCESSES)
}

fn create(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir(path).map_err(|error| at(path, error))
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn read(path: &Path) -> Result<String, CgroupError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| at(path, error))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| at(path, error))?;
    Ok(text)
}

fn at(path: &Path, error: io::Error) -> CgroupError {
    CgroupError { path: path.to_owned(), wanted: None, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_leave_a_reserve_of_processes() {
        assert_eq!(processes("3800\n", "0.06 0.03 0.00 1/83 120\n"), 3800 - 83 - RESERVED_PROCESSES);
        assert_eq!(processes("8251903\n", "0.06 0.03 0.00 1/83 120\n"), 4_194_304 - 83 - RESERVED_PROCESSES);
        assert_eq!(processes("100\n", "0.06 0.03 0.00 1/83 120\n"), RESERVED_PROCESSES, "a tiny machine");
    }

    #[test]
    fn available_memory_is_converted_to_bytes() {
        assert_eq!(available("MemTotal:       9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal:       9 kB\n"), None);
    }
}
