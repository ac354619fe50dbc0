//! Which service a process belongs to.
//!
//! Its law: the kernel says it, by the process's cgroup; neither its user nor what it says of itself counts. A process that
//! is gone, or in no service's cgroup, belongs to none.

use std::os::fd::AsFd;
use std::path::Path;

use cloister_sys::peer::Peer;

/// The name of the service whose process connected `socket`.
#[must_use]
pub fn service_behind(socket: impl AsFd, proc: &Path) -> Option<String> {
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
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/cloister/"))?;
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
        assert_eq!(service_behind(&socket, web.path()).as_deref(), Some("web"));
        assert_eq!(service_behind(&socket, proc(&[]).path()), None);
    }
}
