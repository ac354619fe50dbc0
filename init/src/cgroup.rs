//! Control groups, version 2: one for the supervisor, one for each held process and all that comes from it. Those of services
//! have a common limit, those of servants stand beside them.
//!
//! Its law: a limit is in force when it reads back as written, and a group is killed as a whole (`cgroup.kill`), never by
//! a list of processes. The files are those of `Documentation/admin-guide/cgroup-v2.rst`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cloister_wire::hold::Limits;

/// Where version 2 is mounted in the enclave.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Groups of the services lie in this folder.
const HELD: &str = "cloister";

/// Groups of the servants lie in this one, outside what limits all services together.
const SERVANTS: &str = "servants";

/// The supervisor's group.
const SUPERVISOR: &str = "supervisor";

/// Controllers that are handed down, where the kernel has them. Without the first three no limit could be kept.
const CONTROLLERS: [(&str, bool); 4] = [("memory", true), ("pids", true), ("cpu", true), ("io", false)];

/// The period of `cpu.max` in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Most bytes read from a control file: the files read here have a few lines each.
const MAX_FILE: u64 = 1024 * 1024;

/// What the services leave to others, in bytes: init and the supervisor hold 3 MB of it at rest, the kernel's sockets and page
/// tables take from the rest under load.
const ROOM: u64 = 16 * 1024 * 1024;

/// The processes and threads that services leave to others, beside those that run before the first of them: kernel threads
/// that come with load, the supervisor's own few, and the first process of a service that is about to start.
const ROOM_FOR_PROCESSES: u64 = 256;

/// The most processes and threads of the machine, which the kernel sets by its memory.
const THREADS: &str = "/proc/sys/kernel/threads-max";

/// The most that `pids.max` takes as a number (`PIDS_MAX`, `kernel/cgroup/pids.c`), and that stage `lockdown` makes of
/// `kernel.pid_max`: machines with more than half a terabyte may have more threads than process numbers.
const MOST_PROCESSES: u64 = 4_194_304;

/// How many there are: the number behind the slash in the fourth field (proc(5)).
const LOAD: &str = "/proc/loadavg";

/// What the kernel says about memory.
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
    folder: File,
    events: File,
}

/// A limit that is not in force, or a group that cannot be made.
#[derive(Debug)]
pub struct CgroupError {
    /// The control file.
    pub path: PathBuf,
    /// What should be in it, where it is about a value.
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
    /// The tree below `mount`, with its folders made and the controllers handed down to the held groups.
    pub fn set_up(mount: &Path) -> Result<Self, CgroupError> {
        let available = read(&mount.join("cgroup.controllers"))?;
        let held = mount.join(HELD);
        hand_down(mount, &available)?;
        for folder in [&held, &mount.join(SERVANTS)] {
            make(folder)?;
            hand_down(folder, &available)?;
        }
        let all = processes(&read(Path::new(THREADS))?, &read(Path::new(LOAD))?);
        let path = held.join("pids.max");
        write(&path, &all.to_string()).map_err(|error| plain(&path, error))?;
        let groups = Self { mount: mount.to_owned() };
        groups.leave_room(0)?;
        Ok(groups)
    }

    /// Limits all services together to the memory that is there now, less [`ROOM`] and `reserved` bytes. A group at its limit is
    /// killed from at once; a machine without free memory first drops and reads again the pages of running programs, for
    /// minutes.
    pub fn leave_room(&self, reserved: u64) -> Result<(), CgroupError> {
        let meminfo = Path::new(MEMINFO);
        let available = available(&read(meminfo)?)
            .ok_or_else(|| plain(meminfo, io::Error::other("it does not say what memory is available")))?;
        let limit = available.saturating_sub(ROOM).saturating_sub(reserved).max(ROOM);
        let path = self.mount.join(HELD).join("memory.max");
        write(&path, &limit.to_string()).map_err(|error| plain(&path, error))
    }

    /// The most processes of a service whose manifest names no number: half of what there is for all, so that no one service
    /// can keep the others from starting theirs.
    fn share(&self) -> Result<u64, CgroupError> {
        let all = read(&self.mount.join(HELD).join("pids.max"))?;
        Ok(all.trim().parse().unwrap_or(MOST_PROCESSES) / 2)
    }

    /// The tree as an earlier [`Self::set_up`] left it, if it did.
    #[must_use]
    pub fn find(mount: &Path) -> Option<Self> {
        mount.join(HELD).is_dir().then(|| Self { mount: mount.to_owned() })
    }

    /// The supervisor's group, made if it is not there.
    pub fn supervisor(&self) -> Result<Cgroup, CgroupError> {
        let path = self.mount.join(SUPERVISOR);
        if !path.exists() {
            make(&path)?;
        }
        Cgroup::open(path)
    }

    /// A new group for a held process, with its limits in force: a service's among those that are limited together, a
    /// servant's beside them.
    ///
    /// Errors: `EEXIST` where the last holding of that name has not gone.
    pub fn hold(&self, name: &str, servant: bool, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let path = self.mount.join(if servant { SERVANTS } else { HELD }).join(name);
        make(&path)?;
        let group = Cgroup::open(path)?;
        match self.share().and_then(|pids| group.limit(limits, limits.pids.map_or(pids, u64::from))) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove()?;
                Err(error)
            }
        }
    }

    /// Kills every held process and the supervisor.
    pub fn kill_all(&self) {
        for folder in [HELD, SERVANTS, SUPERVISOR] {
            // What cannot be killed here is killed with everything else when the machine ends.
            drop(write(&self.mount.join(folder).join("cgroup.kill"), "1"));
        }
    }
}

impl Cgroup {
    fn open(path: PathBuf) -> Result<Self, CgroupError> {
        let folder = File::open(&path).map_err(|error| plain(&path, error))?;
        let events = path.join("cgroup.events");
        let events = File::open(&events).map_err(|error| plain(&events, error))?;
        Ok(Self { path, folder, events })
    }

    fn limit(&self, limits: &Limits, pids: u64) -> Result<(), CgroupError> {
        // Half a service is no service: what is out of memory dies as a whole.
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
        Err(failed(io::Error::other(format!("it reads {:?}", found.trim()))))
    }

    /// Kills every member at once.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.path.join("cgroup.kill");
        write(&path, "1").map_err(|error| plain(&path, error))
    }

    /// Whether a process is left, told apart from a failure to know.
    pub fn is_populated(&mut self) -> Result<bool, CgroupError> {
        let mut text = String::new();
        let read = self.events.rewind().and_then(|()| self.events.read_to_string(&mut text));
        read.map_err(|error| plain(&self.path.join("cgroup.events"), error))?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// How often the out-of-memory killer struck in this group.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let events = read(&self.path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Removes the group, which must be empty.
    pub fn remove(self) -> Result<(), CgroupError> {
        fs::remove_dir(&self.path).map_err(|error| plain(&self.path, error))
    }

    /// What a new member is forked into.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Its number, by which the kernel names it elsewhere: the folder's inode. 0, which no group has, if that cannot be read.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.folder.metadata().map(|found| found.ino()).unwrap_or_default()
    }

    /// What becomes ready (`POLLPRI`) when the group fills or empties.
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn hand_down(folder: &Path, available: &str) -> Result<(), CgroupError> {
    let path = folder.join("cgroup.subtree_control");
    let known = |name: &str| available.split_whitespace().any(|word| word == name);
    if let Some((missing, _)) = CONTROLLERS.iter().find(|(name, needed)| *needed && !known(name)) {
        let error = io::Error::other("this kernel has no such controller");
        return Err(CgroupError { path, wanted: Some((*missing).to_owned()), error });
    }
    let words: Vec<String> =
        CONTROLLERS.iter().filter(|(name, _)| known(name)).map(|(name, _)| format!("+{name}")).collect();
    let value = words.join(" ");
    write(&path, &value).map_err(|error| CgroupError { path, wanted: Some(value), error })
}

/// `MemAvailable` of proc(5), in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The most processes of all services, from [`THREADS`] and [`LOAD`]. What cannot be read is no reason for none.
fn processes(threads_max: &str, load: &str) -> u64 {
    let all = threads_max.trim().parse().unwrap_or(MOST_PROCESSES).min(MOST_PROCESSES);
    let running = load.split(['/', ' ']).nth(4).and_then(|count| count.parse().ok()).unwrap_or(0);
    all.saturating_sub(running).saturating_sub(ROOM_FOR_PROCESSES).max(ROOM_FOR_PROCESSES)
}

fn make(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir(path).map_err(|error| plain(path, error))
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn read(path: &Path) -> Result<String, CgroupError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| plain(path, error))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| plain(path, error))?;
    Ok(text)
}

fn plain(path: &Path, error: io::Error) -> CgroupError {
    CgroupError { path: path.to_owned(), wanted: None, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_leave_processes_to_others() {
        assert_eq!(processes("3800\n", "0.06 0.03 0.00 1/83 120\n"), 3800 - 83 - ROOM_FOR_PROCESSES);
        assert_eq!(processes("8251903\n", "0.06 0.03 0.00 1/83 120\n"), 4_194_304 - 83 - ROOM_FOR_PROCESSES);
        assert_eq!(processes("100\n", "0.06 0.03 0.00 1/83 120\n"), ROOM_FOR_PROCESSES, "a tiny machine");
    }

    #[test]
    fn what_is_available_is_read_in_bytes() {
        assert_eq!(available("MemTotal:       9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal:       9 kB\n"), None);
    }
}
