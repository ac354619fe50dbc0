//! The socket pair between init, which holds processes, and the supervisor, which makes the decisions about them.
//!
//! Invariant: init keeps everything that must outlive the supervisor, and interprets none of it. Frames are JSON
//! ([`crate::frame::HOLD_LIMIT`]), externally tagged because that takes the least code to parse. File descriptors are
//! sent with the frame that refers to them, in the order of the references, attached to the frame's first byte.
//!
//! Init sends [`FromInit::Welcome`] first. It hands over everything that init holds, so that a supervisor restarted
//! after a crash knows which processes run. An exit is stored and repeated in each welcome until the supervisor
//! [deletes](FromSupervisor::Forget) it, so that none is lost.
//!
//! Output pipes: init creates a pipe for stdout and one for stderr of each process, and keeps their read ends. Each
//! output stream also has a log history: a memfd that init creates on first request and keeps. The supervisor moves
//! bytes with `splice(pipe → memfd)`. The file position, which the kernel advances in the same call and which init's
//! copy of the descriptor shares, shows how much arrived even if the supervisor dies before it records that.

use serde::{Deserialize, Serialize};

use crate::control::{Exit, FinishedStage, State};

/// The supervisor's descriptor of its end of the socket pair.
pub const SUPERVISOR_FD: i32 = 3;

/// The descriptor of a servant's program until its exec, the only system call that init makes under the servant's
/// filter: `execveat(PROGRAM_FD, "", argv, env, AT_EMPTY_PATH)`. The filter must allow it with this number and these
/// flags. The servant cannot exploit that: exec has closed the descriptor, its root is empty, and if the filter does not
/// allow `memfd_create`, no descriptor refers to an executable file. The number is above the 255 descriptors that can
/// come with a spawn.
pub const PROGRAM_FD: i32 = 1000;

/// A message from init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromInit {
    /// The first frame to each supervisor. Descriptors: one for each entry of `stash`, then `fds` for each entry of
    /// `held`.
    Welcome(Welcome),
    /// A spawn succeeded. Descriptors: the read ends of stdout and stderr.
    Spawned {
        /// The name from the request.
        name: String,
        /// Process 1 of its PID namespace, as a PID in init's namespace.
        pid: u32,
        /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
        at_ns: u64,
        /// The ID of its cgroup, as reported by the kernel's socket diagnosis (`INET_DIAG_CGROUP_ID` of
        /// `linux/inet_diag.h`): the inode number of the cgroup's directory.
        cgroup: u64,
    },
    /// A spawn failed, and everything it created was removed.
    SpawnFailed {
        /// The name from the request.
        name: String,
        /// The step that failed: `cgroup`, `mounts`, `user`, `exec`, …
        step: String,
        /// The system's error number, 0 if there is none, or [`EXITED_BEFORE_EXEC`].
        errno: i32,
        /// Human-readable: the step, the path or value, and the error text.
        error: String,
    },
    /// A held process exited and was reaped, together with every process of its PID namespace.
    Exited(Ended),
    /// The last process of a held cgroup exited.
    Emptied {
        /// The holding's name.
        name: String,
    },
    /// The reply to [`FromSupervisor::MountRoot`].
    RootMounted {
        /// Why the root could not be mounted; `None` on success.
        error: Option<String>,
    },
    /// The reply to [`FromSupervisor::Stash`]. Descriptor: the stashed one, which existed, was created, or came with
    /// the request.
    Stashed {
        /// The stash's name.
        name: String,
    },
    /// A shutdown was requested: by SIGTERM or SIGINT to PID 1, or by the power button.
    StopRequested {
        /// Which of them, human-readable.
        why: String,
    },
}

/// Everything that init holds, sent to each supervisor when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`crate::hello::VERSION`].
    pub version: u32,
    /// `nitro`, `tdx`, `snp` or `virtual`.
    pub platform: String,
    /// The boot stages so far.
    pub boot: Vec<FinishedStage>,
    /// Number of supervisor restarts: 0 for the first one.
    pub restarts: u32,
    /// Whether the application root is mounted.
    pub root_mounted: bool,
    /// The names in the stash.
    pub stash: Vec<String>,
    /// The held processes.
    pub held: Vec<Held>,
}

/// One held process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The name from the spawn request.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Nanoseconds since boot at its start.
    pub at_ns: u64,
    /// Its exit, if it has exited.
    pub ended: Option<Ended>,
    /// Its cgroup, as in [`FromInit::Spawned`].
    pub cgroup: u64,
    /// Whether its cgroup still has members.
    pub populated: bool,
    /// Number of descriptors that follow for it: stdout and stderr, or none while its start is in progress. In that
    /// case [`FromInit::Spawned`], with the descriptors, or [`FromInit::SpawnFailed`] is still to come.
    pub fds: u8,
}

/// The exit of a held process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The name from the spawn request.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// How it exited.
    pub exit: Exit,
    /// Nanoseconds since boot at which it was reaped.
    pub at_ns: u64,
}

/// A message from the supervisor. `S` is the reader's type for the final state: init only forwards it, so it reads it
/// as [`RawState`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromSupervisor<S = State> {
    /// Start a process under this name, which must not be in use. Descriptors: `spec.fds` of them, which become 3, 4, …
    /// in the process.
    Spawn {
        /// A name of at most [`crate::logs::MAX_NAME`] bytes, `a-z 0-9 -`; only a servant's name starts with `@`.
        name: String,
        /// What to run and how it is confined.
        spec: Box<Spawn>,
    },
    /// Send a signal.
    Signal {
        /// The holding.
        name: String,
        /// The signal's number, 1 to 64.
        signal: u8,
        /// The processes that receive it.
        to: SignalTarget,
    },
    /// Delete a holding that has ended: its pipes, its exit, its cgroup.
    Forget {
        /// The holding.
        name: String,
    },
    /// Send the descriptor stashed under this name. If there is none, stash the descriptor that comes with this
    /// message, or a new memfd. At most [`MAX_STASHES`].
    Stash {
        /// A name like a holding's, which may also contain `.`, `_` and `@`.
        name: String,
        /// Number of descriptors that come with this message: 0 or 1.
        fds: u8,
    },
    /// Mount the application root: an overlay of a tmpfs of this size on the read-only image.
    MountRoot {
        /// Maximum number of bytes that the services can write.
        writable_bytes: u64,
        /// Memory that the services cannot use: what the supervisor needs for them, and the limits of all servants,
        /// whose cgroups are outside the one that is limited to the remaining memory.
        reserved_bytes: u64,
    },
    /// Power off. Sent once, after the host has read the final state or its deadline has passed.
    PowerOff {
        /// The enclave's final state, for the console.
        state: S,
    },
}

/// A [`State`] as unparsed JSON, for a reader that only forwards it.
pub type RawState = Box<serde_json::value::RawValue>;

/// The error number of [`FromInit::SpawnFailed`] for a process that exited before its program ran, killed by another
/// process or for lack of memory: `ECHILD`, which no step of a start returns.
pub const EXITED_BEFORE_EXEC: i32 = 10;

/// Maximum number of descriptors in init's stash: two log histories for each of 60 services and a few servants, the
/// servants' sockets, and the supervisor's own.
pub const MAX_STASHES: usize = 256;

/// Maximum number of processes that init holds: further spawns are refused, so that a faulty supervisor cannot exhaust
/// PID 1.
pub const MAX_HELD: usize = 128;

/// The receiver of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalTarget {
    /// The program that was spawned.
    Main,
    /// Every member of its cgroup, by `cgroup.kill`: SIGKILL only.
    Cgroup,
}

/// A program to run and its complete confinement. Init applies it as given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spawn {
    /// The program and its arguments. In [`Place::Root`], a name without a slash is looked up in `PATH` of `env`; in
    /// [`Place::Empty`] the program is a path in ramdisk 1.
    pub argv: Vec<String>,
    /// The complete environment as `KEY=value`.
    pub env: Vec<String>,
    /// Its file system.
    pub place: Place,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities kept in the bounding set, and made ambient for a user other than root, as a bit mask
    /// (`linux/capability.h`).
    pub capabilities: u64,
    /// The seccomp filter as classic BPF instructions, `code << 48 | jt << 40 | jf << 32 | k`; empty for none.
    pub seccomp: Vec<u64>,
    /// The cgroup's limits.
    pub limits: Limits,
    /// Number of descriptors that come with the request.
    pub fds: u8,
}

/// The file system that a process sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The application's root: a service.
    Root(View),
    /// An empty read-only root without mounts: a servant, a program of Cloister that can use only the descriptors it
    /// was given. It is process 1 of its PID namespace. Its program is executed as [`PROGRAM_FD`].
    Empty,
}

/// A service's view of the application's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The working directory.
    pub cwd: String,
    /// Whether the program itself is process 1 of its PID namespace, instead of running below Cloister's first process
    /// ([`crate::first`]).
    pub as_pid_1: bool,
    /// The writable paths in a root that is mounted read-only; `None` leaves the root writable.
    pub writable: Option<Vec<String>>,
    /// Paths that are bind-mounted over themselves before anything else, so that no process in this view can rename,
    /// remove or replace them. A directory comes before its contents.
    pub pinned: Vec<String>,
    /// Files mounted into the root.
    pub files: Vec<File>,
}

/// A file for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path inside the root.
    pub path: String,
    /// Its content.
    pub content: String,
    /// Its mode.
    pub mode: u32,
    /// If true, the file belongs to root and is writable; if false, it belongs to the service's user and is read-only,
    /// regardless of its mode.
    pub writable: bool,
}

/// Limits of a service's cgroup and process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `memory.max` in bytes.
    pub memory: Option<u64>,
    /// `cpu.max` in thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// `pids.max`.
    pub pids: Option<u32>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub open_files: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_has_these_bytes() {
        let ended = Ended { name: "web".into(), pid: 7, exit: Exit::Code(3), at_ns: 9 };
        assert_eq!(
            serde_json::to_string(&FromInit::Exited(ended)).unwrap(),
            r#"{"exited":{"name":"web","pid":7,"exit":{"code":3},"at_ns":9}}"#
        );
    }

    #[test]
    fn a_message_with_an_unknown_field_is_refused() {
        let text = r#"{"forget":{"name":"web","also":"everything"}}"#;
        assert!(serde_json::from_str::<FromSupervisor>(text).is_err());
    }

    #[test]
    fn the_final_state_can_be_forwarded_without_parsing() {
        let state = State::Exited { service: "web".into(), code: 3 };
        let frame =
            crate::frame::encode(&FromSupervisor::PowerOff { state }, crate::frame::HOLD_LIMIT).unwrap();
        let read: FromSupervisor<RawState> = crate::frame::decode(&frame[crate::frame::HEADER..]).unwrap();
        let FromSupervisor::PowerOff { state } = read else { panic!("{read:?}") };
        assert_eq!(state.get(), r#"{"state":"exited","service":"web","code":3}"#);
    }
}
