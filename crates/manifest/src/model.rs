//! The manifest as the enclave reads it: resolved against the image, numeric, canonical.
//!
//! Its law: no field has a default here. What people left out was filled in by the builder, so that the measured bytes say
//! everything, and a reader that meets an unknown or a missing field refuses the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this format; also the `version:` that people write.
pub const VERSION: u32 = 1;

/// The longest manifest in bytes that is read inside: bounds what a broken image can make the supervisor hold, and leaves
/// room in the frame of 1 MiB by which a service's part of it, with its filter, reaches init.
pub const MAX_BYTES: usize = 512 * 1024;

/// The most services: init keeps two log rings for each of them among its 128 named memories.
pub const MAX_SERVICES: usize = 60;

/// The most paths that are [pinned](Root::pinned): each is a mount in every service's view, made anew at each start. With the
/// two dozen that a view has anyway, `inspect` shows them all.
pub const MAX_PINNED: usize = 200;

/// Where every service finds the program that speaks to the supervisor, and its alone.
pub const INITCTL: &str = "/run/cloister/initctl";

/// The most sealed texts of a service: each is an open descriptor of its process from its start.
pub const MAX_SEALED: usize = 16;

/// The system calls that a service may make only if its manifest allows them, by name, sorted. The supervisor's filter has
/// their numbers and reasons.
pub const REFUSED_SYSCALLS: [&str; 37] = [
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "request_key",
    "setns",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// Where the manifest lies in ramdisk 2.
pub const PATH: &str = "/cloister/manifest.json";

/// Everything that is decided about an enclave before it is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The name an operator sees where none is given at launch.
    pub name: String,
    /// What runs, in start order: a service stands after everything it depends on.
    pub services: Vec<Service>,
    /// What can be reached from outside, by port.
    pub ingress: Vec<Ingress>,
    /// The application's root.
    pub root: Root,
    /// What the host may ask beyond reading state and stopping the enclave.
    pub control: Control,
    /// How long a stop may take in all, in milliseconds, before what is left is killed.
    pub stop_timeout_ms: u64,
    /// Whether the image is for development: it measures differently and allows `exec`.
    pub debug: bool,
}

/// One service or one-shot job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique; `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
    pub name: String,
    /// Whether it is meant to run on, or to end.
    pub kind: Kind,
    /// The program and its arguments; the program is an absolute path in the image, or a name found in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment: the image's, then the manifest's.
    pub env: BTreeMap<String, String>,
    /// The working directory, absolute.
    pub cwd: String,
    /// What is process 1 of its PID namespace.
    pub first_process: FirstProcess,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Services that must be ready (a job: done) before this one starts, if they are to start at all.
    pub after: Vec<String>,
    /// Services this one cannot do without: it starts after them, and stops when one of them ends for good.
    pub requires: Vec<String>,
    /// What makes it ready. A job is ready when it has ended with code 0.
    pub ready: Ready,
    /// How long it may take to become ready, in milliseconds.
    pub start_timeout_ms: u64,
    /// How it is checked once it is ready.
    pub live: Option<Live>,
    /// What happens when it ends.
    pub restart: Restart,
    /// Whether the enclave ends with it, with its exit code.
    pub critical: bool,
    /// The signal that asks it to end, by number.
    pub stop_signal: u8,
    /// How long after that signal its cgroup is killed, in milliseconds.
    pub stop_timeout_ms: u64,
    /// What happens to its output.
    pub logs: Logs,
    /// Limits of its cgroup and process.
    pub limits: Limits,
    /// What confines it.
    pub isolation: Isolation,
    /// Read-only files mounted into its root.
    pub files: Vec<File>,
    /// Texts handed over in sealed memory, at most [`MAX_SEALED`]: the variable of each name holds the path to read it by.
    pub sealed: BTreeMap<String, String>,
}

/// Whether a service is meant to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Runs until it is stopped.
    Service,
    /// Runs once, to its end.
    Job,
}

/// What is process 1 of a service's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FirstProcess {
    /// A small program of Cloister's, which reaps orphans and passes signals to the service's program.
    Cloister,
    /// The service's program itself, for images that insist on it.
    Service,
}

/// What makes a service ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ready {
    /// Its program has been executed.
    Started,
    /// It accepts TCP connections on this port of the loopback interface.
    Tcp(u16),
    /// It answers `GET path` on this port with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path, from its slash.
        path: String,
    },
    /// This file exists in the application's root.
    File(String),
    /// A line of its output contains this text.
    Log(String),
    /// It says `READY=1` to `NOTIFY_SOCKET` (`sd_notify(3)`).
    Notify,
}

/// A liveness check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// What is asked.
    pub check: Check,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds a check may take.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy: its cgroup is killed and the restart policy decides.
    pub threshold: u32,
}

/// What a liveness check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Check {
    /// A TCP connection to this port.
    Tcp(u16),
    /// `GET path` on this port answers 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path, from its slash.
        path: String,
    },
    /// `WATCHDOG=1` arrives within the interval (`sd_notify(3)`).
    Watchdog,
}

/// What happens when a service ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// When it is started again.
    pub policy: Policy,
    /// The pause before the first restart, in milliseconds, measured from the exit. It doubles with each restart.
    pub delay_ms: u64,
    /// The longest pause in milliseconds.
    pub max_delay_ms: u64,
    /// Milliseconds of being ready after which the pause and the burst count start over.
    pub stable_ms: u64,
    /// Restarts without a stable time in between after which it has failed.
    pub burst: u32,
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Whenever it ends.
    Always,
    /// When it ends with another code than 0, or by a signal, or is unhealthy.
    OnFailure,
    /// Not at all.
    Never,
}

/// What happens to a service's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Logs {
    /// The host can read it.
    Forward,
    /// It is read and thrown away inside.
    Drop,
}

/// Limits of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `memory.max` in bytes.
    pub memory: Option<u64>,
    /// `cpu.max` in thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// `pids.max`.
    pub pids: Option<u32>,
    /// `RLIMIT_NOFILE`.
    pub open_files: u32,
}

/// What confines a service, beyond what confines them all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// Capabilities it keeps, by name as in `capabilities(7)`, sorted.
    pub capabilities: Vec<String>,
    /// System calls it may make although the default filter refuses them, by name, sorted.
    pub allow_syscalls: Vec<String>,
    /// Paths it may write. `None`: wherever its user may.
    pub writable: Option<Vec<String>>,
}

/// A file that a service finds in its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Its content.
    pub content: String,
    /// Its mode, permission bits only.
    pub mode: u32,
}

/// One port that can be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// The port's number outside the enclave: what `--publish HOST:PORT` names.
    pub port: u16,
    /// The service behind it.
    pub service: String,
    /// The TCP port that service listens on.
    pub target: u16,
    /// Whether the client's address is sent ahead by the PROXY protocol, version 2.
    pub proxy_protocol: bool,
}

/// The application's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The most bytes that can be written above the read-only image.
    pub writable_bytes: u64,
    /// Files that every service finds in its view, since the image has none: each is root's and may be written by root, in
    /// a copy of the service's own. A service's own file of the same path comes before it.
    pub additions: Vec<File>,
    /// Every path of the image that a service's view mounts something on, or that one of several services may write while the
    /// rest of its root is read-only, with the folders and links on the way there, sorted: no service can rename, remove or
    /// replace one of them.
    pub pinned: Vec<String>,
}

/// What may be asked beyond reading state and stopping the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// What the host may do with single services: `start`, `stop`, `restart`, `signal`; sorted.
    pub host: Vec<ControlVerb>,
    /// Services that may list, start, stop and signal services, and read their logs; sorted.
    pub services: Vec<String>,
}

/// One thing a manifest can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ControlVerb {
    /// Start a stopped service.
    Start,
    /// Stop a service.
    Stop,
    /// Restart a service.
    Restart,
    /// Send a signal to a service.
    Signal,
}

/// A manifest that cannot be read inside.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It is over [`MAX_BYTES`].
    #[error("the manifest has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// It is not this format.
    #[error("the manifest is not version {VERSION} of the format: {0}")]
    Format(#[from] serde_json::Error),
    /// It is of another version.
    #[error("the manifest is of version {0}, this supervisor reads version {VERSION}")]
    Version(u32),
}

impl Manifest {
    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() > MAX_BYTES {
            return Err(ModelError::TooLong(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version != VERSION {
            return Err(ModelError::Version(manifest.version));
        }
        Ok(manifest)
    }

    /// The canonical JSON: fields in declaration order, maps sorted, no white space, one newline at the end.
    pub fn to_json(&self) -> Result<Vec<u8>, ModelError> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
