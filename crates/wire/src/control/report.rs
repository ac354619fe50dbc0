//! Replies read back from the kernel: resource use and confinement of services.
//!
//! Invariant: they contain only figures and names, never a value that was passed to a service.

use serde::{Deserialize, Serialize};

use super::IngressCounters;

/// Resource use, as of the time of the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One entry per service.
    pub services: Vec<ServiceStats>,
    /// The same for each servant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub servants: Vec<ServiceStats>,
    /// Current ingress counters; those in a [`Status`](super::Status) date from the last change of something else.
    #[serde(default)]
    pub ingress: IngressCounters,
}

/// What one service uses, from its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// The service.
    pub name: String,
    /// CPU time since its cgroup was created, in microseconds (`cpu.stat`, `usage_usec`).
    pub cpu_us: u64,
    /// Memory in bytes (`memory.current`).
    pub memory: u64,
    /// Peak memory in bytes (`memory.peak`).
    pub memory_peak: u64,
    /// Processes and threads (`pids.current`).
    pub pids: u64,
    /// Processes killed by the out-of-memory killer (`memory.events`: `oom_kill` minus `oom_group_kill`, since the
    /// first process of a group that is killed as a whole is counted twice).
    pub oom_kills: u64,
}

/// The confinement of a running service, read back from `/proc` and its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The service.
    pub service: String,
    /// The process these were read from.
    pub pid: u32,
    /// Real, effective, saved and file-system user (`Uid:` of `/proc/PID/status`).
    pub uids: Vec<u32>,
    /// The same for groups (`Gid:`).
    pub gids: Vec<u32>,
    /// Supplementary groups (`Groups:`).
    pub groups: Vec<u32>,
    /// `NoNewPrivs:`.
    pub no_new_privs: bool,
    /// `Seccomp:`: 0 off, 1 strict, 2 filter.
    pub seccomp: u8,
    /// `CapBnd:` as a bit mask.
    pub capabilities_bounding: u64,
    /// `CapEff:` as a bit mask.
    pub capabilities_effective: u64,
    /// `/proc/PID/oom_score_adj`: with 0 the kernel decides when memory runs out, with -1000 it never kills the
    /// process.
    pub oom_score_adj: i32,
    /// The cgroup's limits by file name: `memory.max`, `cpu.max`, `pids.max`, `memory.oom.group`.
    pub cgroup: Vec<(String, String)>,
    /// Memory limit of all services together, in bytes: `memory.max` of their parent cgroup. `None` means no limit.
    #[serde(default)]
    pub services_memory: Option<u64>,
    /// Mounts that the process sees: mount point and options (`/proc/PID/mountinfo`).
    pub mounts: Vec<(String, String)>,
    /// The limits in `/proc/PID/limits` that Cloister sets: name, soft, hard.
    pub limits: Vec<(String, String, String)>,
}
