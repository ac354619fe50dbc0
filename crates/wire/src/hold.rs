//! The socket pair between init, which holds processes, and the supervisor, which decides about them.
//!
//! Its law: init keeps what must outlive the supervisor and understands none of it. Frames are JSON
//! ([`crate::frame::HOLD_LIMIT`]) with the message's name outside, the form that takes the least code to read; file descriptors travel beside the frame that names them, in the order it names them,
//! attached to the frame's first byte.
//!
//! Init speaks first with [`FromInit::Welcome`], which hands over everything it holds, so that a supervisor started again
//! after a crash knows what runs. An exit is kept and told again with each welcome until it is
//! [forgotten](FromSupervisor::Forget), so that none is lost.
//!
//! Output pipes: init creates for each process a pipe for stdout and one for stderr and keeps their read ends. Each
//! service stream also has a log history: a memfd that init creates when it first hears of the stream and keeps. The
//! supervisor moves bytes with `splice(pipe → memfd)`; its file position, which the kernel advances in the same call
//! and which init's copy of the descriptor shares, says how much arrived even if the supervisor dies before it notes it.

use serde::{Deserialize, Serialize};

use crate::control::{Exit, FinishedStage, State};

/// The descriptor number of the socket pair in the supervisor.
pub const SUPERVISOR_FD: i32 = 3;

/// The descriptor number of a servant's program until its exec, the one system call that init makes under the servant's filter:
/// `execveat(PROGRAM_FD, "", argv, env, AT_EMPTY_PATH)`. The filter must allow it with this number and these flags. That is worth
/// nothing to the servant: exec has closed the descriptor, its root is empty, and where the filter allows neither `dup2` nor
/// `memfd_create` no file that could be executed gets this number. Above the 255 descriptors that can come with a spawn.
pub const PROGRAM_FD: i32 = 1000;

/// What init sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromInit {
    /// The first frame to each supervisor. Descriptors: one for each entry of `stash`, then for each entry of `held` its
    /// `fds`.
    Welcome(Welcome),
    /// A spawn succeeded. Descriptors: the read ends of stdout and stderr.
    Spawned {
        /// The request's name for it.
        name: String,
        /// Process 1 of its PID namespace, by init's numbers.
        pid: u32,
        /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
        at_ns: u64,
        /// Its cgroup, by the number that the kernel's socket diagnosis names (`INET_DIAG_CGROUP_ID` of `linux/inet_diag.h`):
        /// the inode of the cgroup's folder.
        cgroup: u64,
    },
    /// A spawn failed; nothing of it is left.
    SpawnFailed {
        /// The request's name for it.
        name: String,
        /// The step that failed: `cgroup`, `mounts`, `user`, `exec`, …
        step: String,
        /// The system's error number, 0 where there is none, [`STARTED_NOTHING`].
        errno: i32,
        /// For people: the step, the path or value, the error's words.
        error: String,
    },
    /// A held process ended and was reaped, and with it every process of its PID namespace.
    Exited(Ended),
    /// The last process of a held cgroup is gone.
    Emptied {
        /// The holding's name.
        name: String,
    },
    /// The answer to [`FromSupervisor::MountRoot`].
    RootMounted {
        /// `None` if the root is in place, else why not.
        error: Option<String>,
    },
    /// The answer to [`FromSupervisor::Stash`]. Descriptor: the memfd, newly made or as it was, or what came along.
    Stashed {
        /// The stash's name.
        name: String,
    },
    /// Somebody asked for the machine's end: SIGTERM or SIGINT to PID 1, or the power button.
    StopAsked {
        /// What it was, for people.
        why: String,
    },
}

/// What init holds, told to each supervisor when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`crate::hello::VERSION`].
    pub version: u32,
    /// `nitro`, `tdx`, `sev-snp` or `virtual`.
    pub platform: String,
    /// The boot stages so far.
    pub boot: Vec<FinishedStage>,
    /// 0 for the first supervisor, then one more for each.
    pub restarts: u32,
    /// Whether the application root is in place.
    pub root_mounted: bool,
    /// The names of what is kept.
    pub stash: Vec<String>,
    /// The processes that are kept.
    pub held: Vec<Held>,
}

/// One held process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The name given at its spawn.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Nanoseconds since boot at its start.
    pub at_ns: u64,
    /// Its end, where it has ended and has not been forgotten.
    pub ended: Option<Ended>,
    /// Its cgroup, as in [`FromInit::Spawned`].
    pub cgroup: u64,
    /// Whether its cgroup still has members.
    pub populated: bool,
    /// How many descriptors follow for it: stdout and stderr, or none while it is on its way to its program. Then
    /// [`FromInit::Spawned`], with its descriptors, or [`FromInit::SpawnFailed`] is still to come.
    pub fds: u8,
}

/// The end of a held process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The name given at its spawn.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// How.
    pub exit: Exit,
    /// Nanoseconds since boot at which it was reaped.
    pub at_ns: u64,
}

/// What the supervisor sends. `S` is the last state as its reader sees it: init only passes it on, so it reads it as
/// [`LastWords`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromSupervisor<S = State> {
    /// Start a process under this name, which must not be held. Descriptors: `spec.fds` of them, which become 3, 4, … in the
    /// process.
    Spawn {
        /// A name of [`crate::logs::MAX_NAME`] bytes at most, `a-z 0-9 -`; that of a servant, and no other, begins with `@`.
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
        /// Whom.
        to: SignalTarget,
    },
    /// Drop an ended holding: its pipes, its exit, its cgroup.
    Forget {
        /// The holding.
        name: String,
    },
    /// Hand over what is kept under this name; where nothing is, keep the descriptor that comes along, or make a memfd. At
    /// most [`MAX_STASHES`].
    Stash {
        /// A name like a holding's, with `.`, `_` and `@` anywhere.
        name: String,
        /// How many descriptors come along: 0 or 1.
        fds: u8,
    },
    /// Put the application root together: the read-only image below, a tmpfs of this size above.
    MountRoot {
        /// The most bytes the services can write.
        writable_bytes: u64,
        /// Memory that the services may not take: what the supervisor needs for them, and the limits of all servants, whose cgroups
        /// are not below the one that is limited to the rest.
        reserved_bytes: u64,
    },
    /// The enclave's last state: power off. Said once, after the host has seen it or its deadline has passed.
    PowerOff {
        /// For the console's last words.
        state: S,
    },
}

/// A [`State`] as its JSON text, for a reader that has no use for its parts.
pub type LastWords = Box<serde_json::value::RawValue>;

/// The error number of [`FromInit::SpawnFailed`] for a process that ended before its program ran, killed from outside or for
/// want of memory: `ECHILD`, with which no step of a start fails.
pub const STARTED_NOTHING: i32 = 10;

/// The most descriptors init keeps by name: two log histories for each of 60 services and of a few servants, the sockets of
/// those, and the supervisor's own.
pub const MAX_STASHES: usize = 256;

/// The most processes init holds at once: a spawn past it is refused, so that a confused supervisor cannot fill PID 1.
pub const MAX_HELD: usize = 128;

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalTarget {
    /// The program that was spawned.
    Main,
    /// Every member of its cgroup, by `cgroup.kill`: SIGKILL only.
    Cgroup,
}

/// What to run, and everything that confines it. Init applies it as given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spawn {
    /// The program and its arguments. In a root, a name without a slash is looked up in `PATH` of `env`; in an empty place the
    /// program is a path in ramdisk 1.
    pub argv: Vec<String>,
    /// The whole environment as `KEY=value`.
    pub env: Vec<String>,
    /// What it sees of the machine.
    pub place: Place,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities kept in the bounding set, and made ambient for a user that is not root, as a mask by number
    /// (`linux/capability.h`).
    pub capabilities: u64,
    /// The seccomp filter as classic BPF instructions, `code << 48 | jt << 40 | jf << 32 | k`; empty for none.
    pub seccomp: Vec<u64>,
    /// The cgroup's limits.
    pub limits: Limits,
    /// How many descriptors come with the request.
    pub fds: u8,
}

/// What a process sees of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The application's root: a service.
    Root(View),
    /// An empty read-only root, and nothing mounted in it: a servant, a program of ours that holds what it was given as
    /// descriptors and nothing else. It is process 1 of its PID namespace. Its program is executed as [`PROGRAM_FD`].
    Empty,
}

/// A service's view of the application's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The working directory.
    pub cwd: String,
    /// Whether the program is process 1 of its PID namespace itself, and not below a first process of ours ([`crate::first`]).
    pub as_first: bool,
    /// Where the process may write, in a root that is mounted read-only; `None` leaves the root writable.
    pub writable: Option<Vec<String>>,
    /// What is mounted over itself before anything else, so that no process of this view can rename, remove or replace it:
    /// a folder before what is in it.
    pub pinned: Vec<String>,
    /// Files mounted into the root: path and content.
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
    /// Whether it is root's and can be written; else it is the service's user's and read-only, whatever its mode.
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
    fn the_last_state_can_be_passed_on_unread() {
        let state = State::Exited { service: "web".into(), code: 3 };
        let frame =
            crate::frame::encode(&FromSupervisor::PowerOff { state }, crate::frame::HOLD_LIMIT).unwrap();
        let read: FromSupervisor<LastWords> = crate::frame::decode(&frame[crate::frame::HEADER..]).unwrap();
        let FromSupervisor::PowerOff { state } = read else { panic!("{read:?}") };
        assert_eq!(state.get(), r#"{"state":"exited","service":"web","code":3}"#);
    }
}
