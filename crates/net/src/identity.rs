//! The identity of a peer.
//!
//! Invariant: it comes from the kernel: from a listener that only the host can reach, or from the cgroup of the
//! connecting process. A process's user and its own claims do not matter. What an identity may do is decided elsewhere.
//!
//! An [`Identity`] is derived from a cgroup ([`of_cgroup`]), a process ([`of_process`]) or the process connected to a
//! Unix socket ([`of_peer`]). [`crate::Peer`] is an address, not an identity.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use cloister_sys::peer::Peer;

/// The parent of the services' cgroups, as a path below the root of the cgroup v2 hierarchy (`cgroups(7)`).
const SERVICES: &str = "/cloister/";

/// The prefix of a cgroup v2 path in `/proc/PID/cgroup`.
const VERSION_2: &str = "0::";

/// The identity of a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The host.
    Host,
    /// A process in the cgroup of this service.
    Service(String),
    /// A process that is not in a service's cgroup, or that exited before its cgroup could be read.
    Unknown,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Unknown => f.write_str("an unknown process"),
        }
    }
}

impl Identity {
    /// The name of the service, if the peer is one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service(name) => Some(name),
            Self::Host | Self::Unknown => None,
        }
    }
}

/// The owner of a cgroup, by its path below the root of the hierarchy: a service's own cgroup, or one that the service
/// created below it.
#[must_use]
pub fn of_cgroup(path: &str) -> Identity {
    let name = path.strip_prefix(SERVICES).and_then(|below| below.split('/').next());
    name.filter(|name| !name.is_empty()).map_or(Identity::Unknown, |name| Identity::Service(name.to_owned()))
}

/// The owner of process `pid`, looked up in `proc`.
#[must_use]
pub fn of_process(proc: &Path, pid: u32) -> Identity {
    let cgroups = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    let path = cgroups.lines().find_map(|line| line.strip_prefix(VERSION_2));
    path.map_or(Identity::Unknown, of_cgroup)
}

/// The owner of the process that connected the Unix socket `socket`. A descriptor refers to the process while it is
/// looked up in `proc`, which detects that its PID was reused.
#[must_use]
pub fn of_peer(socket: impl AsFd, proc: &Path) -> Identity {
    let Ok(peer) = Peer::of(socket) else { return Identity::Unknown };
    let Ok(pid) = peer.pid() else { return Identity::Unknown };
    let identity = of_process(proc, pid);
    // The process still has its PID, so the lookup was about this process.
    if peer.pid().is_ok_and(|now| now == pid) { identity } else { Identity::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn proc(processes: &[(u32, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, text) in processes {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            std::fs::write(proc.path().join(format!("{pid}/cgroup")), text).unwrap();
        }
        proc
    }

    #[test]
    fn a_service_is_identified_by_its_cgroup() {
        let proc =
            proc(&[(7, "0::/cloister/web\n"), (8, "0::/cloister/db/worker\n"), (9, "0::/supervisor\n")]);
        assert_eq!(of_process(proc.path(), 7).service(), Some("web"));
        assert_eq!(of_process(proc.path(), 8).service(), Some("db"));
        assert_eq!(of_process(proc.path(), 9), Identity::Unknown);
        assert_eq!(of_process(proc.path(), 10), Identity::Unknown, "an exited process");
        for path in ["", "/", "/cloister", "/cloister/", "/other/cloister/web"] {
            assert_eq!(of_cgroup(path), Identity::Unknown, "{path}");
        }
    }

    #[test]
    fn a_connection_belongs_to_the_service_of_the_connecting_process() {
        let (socket, _theirs) = UnixStream::pair().unwrap();
        let web = proc(&[(std::process::id(), "0::/cloister/web\n")]);
        assert_eq!(of_peer(&socket, web.path()), Identity::Service("web".to_owned()));
        assert_eq!(of_peer(&socket, proc(&[]).path()), Identity::Unknown);
    }
}
