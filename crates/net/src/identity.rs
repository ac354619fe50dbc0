//! Who is at the other end of a connection.
//!
//! Its law: the kernel says it: by the listener that only the host reaches, or by the cgroup of the process that connected.
//! Neither a process's user nor what it says of itself counts. What an identity may do is for others to decide.
//!
//! [`Identity`] is the one answer, however it is found: by the cgroup itself ([`of_cgroup`]), by a process ([`of_process`]) or
//! by the process behind a Unix socket ([`of_peer`]). [`crate::Peer`] is an address, which is no identity.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use cloister_sys::peer::Peer;

/// The group that the services' cgroups lie in, as paths below the root of version 2's only hierarchy (`cgroups(7)`).
const SERVICES: &str = "/cloister/";

/// What stands in front of such a path in `/proc/PID/cgroup`.
const VERSION_2: &str = "0::";

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The host.
    Host,
    /// A process in the cgroup of this service.
    Service(String),
    /// A process in no service's cgroup, or one that was gone before its cgroup could be read.
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
    /// The name of the service, if it is one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service(name) => Some(name),
            Self::Host | Self::Unknown => None,
        }
    }
}

/// Whose a cgroup is, by its path below the root of the hierarchy: a service's own, or one that the service made in it.
#[must_use]
pub fn of_cgroup(path: &str) -> Identity {
    let name = path.strip_prefix(SERVICES).and_then(|below| below.split('/').next());
    name.filter(|name| !name.is_empty()).map_or(Identity::Unknown, |name| Identity::Service(name.to_owned()))
}

/// Whose process `pid` is, as `proc` shows it now.
#[must_use]
pub fn of_process(proc: &Path, pid: u32) -> Identity {
    let cgroups = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    let path = cgroups.lines().find_map(|line| line.strip_prefix(VERSION_2));
    path.map_or(Identity::Unknown, of_cgroup)
}

/// Whose process connected the Unix socket `socket`. The process is held by a descriptor while it is looked up in `proc`, so
/// that no other can take its number meanwhile.
#[must_use]
pub fn of_peer(socket: impl AsFd, proc: &Path) -> Identity {
    let Ok(peer) = Peer::of(socket) else { return Identity::Unknown };
    let Ok(pid) = peer.pid() else { return Identity::Unknown };
    let identity = of_process(proc, pid);
    // While the process has its number nobody else has: what was read was about it.
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
    fn a_service_is_known_by_its_cgroup() {
        let proc =
            proc(&[(7, "0::/cloister/web\n"), (8, "0::/cloister/db/worker\n"), (9, "0::/supervisor\n")]);
        assert_eq!(of_process(proc.path(), 7).service(), Some("web"));
        assert_eq!(of_process(proc.path(), 8).service(), Some("db"));
        assert_eq!(of_process(proc.path(), 9), Identity::Unknown);
        assert_eq!(of_process(proc.path(), 10), Identity::Unknown, "a process that is gone");
        for path in ["", "/", "/cloister", "/cloister/", "/other/cloister/web"] {
            assert_eq!(of_cgroup(path), Identity::Unknown, "{path}");
        }
    }

    #[test]
    fn a_connection_is_from_the_service_of_the_process_that_made_it() {
        let (socket, _theirs) = UnixStream::pair().unwrap();
        let web = proc(&[(std::process::id(), "0::/cloister/web\n")]);
        assert_eq!(of_peer(&socket, web.path()), Identity::Service("web".to_owned()));
        assert_eq!(of_peer(&socket, proc(&[]).path()), Identity::Unknown);
    }
}
