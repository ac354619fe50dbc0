//! What is read back from the kernel for whoever asks: use and confinement of services.
//!
//! Its law: figures and names alone; no value that a service was given is in here.

use serde::{Deserialize, Serialize};

use super::IngressCounters;

/// What is counted, as of the moment of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One entry a service.
    pub services: Vec<ServiceStats>,
    /// The same for each servant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub servants: Vec<ServiceStats>,
    /// Ingress, which a [`Status`](super::Status) shows as it was when something else changed.
    #[serde(default)]
    pub ingress: IngressCounters,
}

/// What one service uses, from its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// The service.
    pub name: String,
    /// CPU time since its cgroup was made, in microseconds (`cpu.stat`, `usage_usec`).
    pub cpu_us: u64,
    /// Memory in bytes (`memory.current`).
    pub memory: u64,
    /// Most memory so far in bytes (`memory.peak`).
    pub memory_peak: u64,
    /// Processes and threads (`pids.current`).
    pub pids: u64,
    /// Processes that the out-of-memory killer killed (`memory.events`: `oom_kill` less `oom_group_kill`, since the first
    /// process of a group that is killed as a whole is counted twice).
    pub oom_kills: u64,
}

/// What confines a running service, read back from `/proc` and its cgroup.
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
    /// `/proc/PID/oom_score_adj`: 0 is the kernel's own judgement when memory runs out, -1000 is never.
    pub oom_score_adj: i32,
    /// The cgroup's limits by file name: `memory.max`, `cpu.max`, `pids.max`, `memory.oom.group`.
    pub cgroup: Vec<(String, String)>,
    /// What all services together may use, in bytes: `memory.max` of the group that theirs lie in. None is no limit.
    #[serde(default)]
    pub services_memory: Option<u64>,
    /// Mounts the process sees: where and with which options (`/proc/PID/mountinfo`).
    pub mounts: Vec<(String, String)>,
    /// Limits of `/proc/PID/limits` that we set: name, soft, hard.
    pub limits: Vec<(String, String, String)>,
}
