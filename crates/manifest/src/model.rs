//! The manifest as the enclave reads it: resolved against the image, numeric, canonical.
//!
//! Invariant: no field has a default here. The builder has filled in the omitted fields, so that the measured bytes are
//! complete, and a reader refuses a manifest with an unknown or a missing field.

mod access;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use access::{Attestation, AttestationVerb, Control, ControlVerb};

use crate::platform::Platform;

/// The version of this format; also the `version:` of the YAML source.
pub const VERSION: u32 = 1;

/// The maximum size in bytes of a manifest that is read inside: bounds the memory that a broken image can make the supervisor
/// use, and leaves space in the 1 MiB frame that carries a service's part of it, with its filter, to init.
pub const MAX_BYTES: usize = 512 * 1024;

/// The maximum number of services: init holds two log rings for each of them among its 256 stash entries.
pub const MAX_SERVICES: usize = 60;

/// The maximum number of [pinned](Root::pinned) paths: each is a mount in every service's view, created anew at each start.
/// Together with the two dozen mounts that every view has, `inspect` shows them all.
pub const MAX_PINNED: usize = 200;

/// The path at which every service finds the program that talks to the supervisor.
pub const INITCTL: &str = "/run/cloister/initctl";

/// The maximum number of sealed texts of a service: each is an open descriptor of its process from the start.
pub const MAX_SEALED: usize = 16;

/// The system calls that a service may make only if its manifest allows them, by name, sorted. The supervisor's filter
/// contains their numbers and reasons.
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

/// The manifest's path in ramdisk 2.
pub const PATH: &str = "/cloister/manifest.json";

/// Everything that is decided about an enclave before it is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The enclave's name if none is given at launch.
    pub name: String,
    /// The platforms that it runs on, sorted: on any other, the supervisor starts nothing.
    pub platforms: Vec<Platform>,
    /// The services, in start order: each comes after everything it depends on.
    pub services: Vec<Service>,
    /// The ports that can be reached from outside.
    pub ingress: Vec<Ingress>,
    /// The application's root.
    pub root: Root,
    /// Requests that are accepted in addition to reading state and stopping the enclave.
    pub control: Control,
    /// Who may use the security module.
    pub attestation: Attestation,
    /// Time limit for stopping the whole enclave, in milliseconds; what still runs then is killed.
    pub stop_timeout_ms: u64,
    /// Whether the image is for development. The builder accepts only `false` so far.
    pub debug: bool,
}

/// One service or one-shot job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique; `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
    pub name: String,
    /// Whether it keeps running or runs to completion.
    pub kind: Kind,
    /// The program and its arguments; the program is an absolute path in the image, or a name found in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment: the image's, then the manifest's.
    pub env: BTreeMap<String, String>,
    /// The working directory, absolute.
    pub cwd: String,
    /// Process 1 of its PID namespace.
    pub first_process: FirstProcess,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Services that must be ready (a job: completed) before this one starts, if they are to start at all.
    pub after: Vec<String>,
    /// Services that this one depends on: it starts after them, and stops when one of them ends and will not be restarted.
    pub requires: Vec<String>,
    /// When it counts as ready. A job is ready when it has exited with code 0.
    pub ready: Ready,
    /// Time limit for becoming ready, in milliseconds.
    pub start_timeout_ms: u64,
    /// The liveness check, made once it is ready.
    pub live: Option<Live>,
    /// What happens when it exits.
    pub restart: Restart,
    /// Whether the enclave ends when it ends, with its exit code.
    pub critical: bool,
    /// The signal that requests termination, by number.
    pub stop_signal: u8,
    /// Time from that signal until its cgroup is killed, in milliseconds.
    pub stop_timeout_ms: u64,
    /// What happens to its output.
    pub logs: Logs,
    /// Limits of its cgroup and process.
    pub limits: Limits,
    /// What confines it.
    pub isolation: Isolation,
    /// Read-only files mounted into its root.
    pub files: Vec<File>,
    /// Texts passed in sealed memory, at most [`MAX_SEALED`]: the variable of each name holds the path to read the text from.
    pub sealed: BTreeMap<String, String>,
}

/// Whether a service keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Runs until it is stopped.
    Service,
    /// Runs once, to completion.
    Job,
}

/// Process 1 of a service's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FirstProcess {
    /// A small program of Cloister's, which reaps orphans and forwards signals to the service's program.
    Cloister,
    /// The service's program itself, for images that require it.
    Service,
}

/// When a service counts as ready.
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
    /// It sends `READY=1` to `NOTIFY_SOCKET` (`sd_notify(3)`).
    Notify,
}

/// A liveness check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// What is checked.
    pub check: Check,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds a check may take.
    pub timeout_ms: u64,
    /// Consecutive failures that make it unhealthy: its cgroup is killed and the restart policy applies.
    pub threshold: u32,
}

/// What a liveness check does.
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

/// What happens when a service exits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// When it is restarted.
    pub policy: Policy,
    /// The delay before the first restart, in milliseconds, measured from the exit. It doubles with each restart.
    pub delay_ms: u64,
    /// The maximum delay in milliseconds.
    pub max_delay_ms: u64,
    /// Milliseconds of being ready after which the delay and the restart count are reset.
    pub stable_ms: u64,
    /// Restarts without a stable period in between after which it has failed.
    pub burst: u32,
}

/// When a service is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// After every exit.
    Always,
    /// When it exits with a code other than 0, is killed by a signal, or is unhealthy.
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
    /// It is read and discarded inside.
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

/// How a service is confined, beyond what applies to all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// Capabilities it keeps, by name as in `capabilities(7)`, sorted.
    pub capabilities: Vec<String>,
    /// System calls it may make although the default filter refuses them, by name, sorted.
    pub allow_syscalls: Vec<String>,
    /// Paths it may write. `None`: everywhere its user may.
    pub writable: Option<Vec<String>>,
}

/// A file that is mounted into a service's root.
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
    /// The port number outside the enclave: `PORT` in `--publish HOST:PORT`.
    pub port: u16,
    /// The service that receives the connections.
    pub service: String,
    /// The TCP port that the service listens on.
    pub target: u16,
    /// Whether a PROXY protocol version 2 header with the client's address is sent first.
    pub proxy_protocol: bool,
}

/// The application's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The maximum number of bytes that can be written on top of the read-only image.
    pub writable_bytes: u64,
    /// Files that every service finds in its view because the image does not contain them: each is owned by root and may be
    /// written by root, in a copy private to the service. A service's own file of the same path takes precedence.
    pub additions: Vec<File>,
    /// Every path of the image that a service's view mounts something on, or that one of several services may write while the
    /// rest of its root is read-only, with the directories and links on the path there, sorted: no service can rename, remove
    /// or replace one of them.
    pub pinned: Vec<String>,
}

/// A manifest that cannot be read inside.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It is over [`MAX_BYTES`].
    #[error("the manifest is {0} bytes, more than the limit of {MAX_BYTES}")]
    TooLong(usize),
    /// It does not match this format.
    #[error("the manifest does not match version {VERSION} of the format: {0}")]
    Format(#[from] serde_json::Error),
    /// It has another version.
    #[error("the manifest has version {0}; this supervisor supports version {VERSION}")]
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
