//! Who is at the other end of a connection.
//!
//! Its law: the kernel says it: by the listener that only the host reaches, or by the cgroup of the process that connected.
//! Neither a process's user nor what it says of itself counts. What an identity may do is for others to decide.
//!
//! [`Identity`] is the one answer, however it is found: for a Unix socket by its process ([`service_behind`]), whose cgroup
//! names the service ([`service_of`]). [`crate::Peer`] is an address, which is no identity.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use cloister_sys::peer::Peer;

/// Where a service's cgroup lies, as `/proc/PID/cgroup` has it (`cgroups(7)`): in version 2's only hierarchy, below the group
/// of all services.
const SERVICES: &str = "0::/cloister/";

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

/// Whose process connected `socket`. The process is held by a descriptor while it is looked up in `proc`, so that no other
/// can take its number meanwhile.
#[must_use]
pub fn service_behind(socket: impl AsFd, proc: &Path) -> Identity {
    find(socket, proc).map_or(Identity::Unknown, Identity::Service)
}

fn find(socket: impl AsFd, proc: &Path) -> Option<String> {
    let peer = Peer::of(socket).ok()?;
    let pid = peer.pid().ok()?;
    let service = service_of(proc, pid)?;
    // While the process has its number nobody else has: what was read was about it.
    (peer.pid().ok()? == pid).then_some(service)
}

/// The name of the service whose cgroup process `pid` is in.
#[must_use]
pub fn service_of(proc: &Path, pid: u32) -> Option<String> {
    let cgroup = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix(SERVICES))?;
    path.split('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
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
        assert_eq!(service_of(proc.path(), 7).as_deref(), Some("web"));
        assert_eq!(service_of(proc.path(), 8).as_deref(), Some("db"));
        assert_eq!(service_of(proc.path(), 9), None);
        assert_eq!(service_of(proc.path(), 10), None, "a process that is gone");
    }

    #[test]
    fn a_connection_is_from_the_service_of_the_process_that_made_it() {
        let (socket, _theirs) = UnixStream::pair().unwrap();
        let web = proc(&[(std::process::id(), "0::/cloister/web\n")]);
        assert_eq!(service_behind(&socket, web.path()), Identity::Service("web".to_owned()));
        assert_eq!(service_behind(&socket, proc(&[]).path()), Identity::Unknown);
    }
}
