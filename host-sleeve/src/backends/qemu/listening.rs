//! Whether a program is listening on its Unix sockets yet.
//!
//! Invariant: this is determined from the kernel's tables. A socket's name exists before its owner listens, and a test
//! connection would be taken for the one connection that a vhost-user device serves.

use std::collections::HashSet;
use std::fs;

/// The bit of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`, include/linux/net.h).
const LISTENS: u32 = 1 << 16;

/// Whether the process `pid` is listening on Unix sockets with all these names, as it passed them to bind(2).
pub(super) fn listens(pid: u32, names: &[&str]) -> bool {
    let sockets = sockets_of(pid);
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let listening: HashSet<&str> = table
        .lines()
        .filter_map(entry)
        .filter(|(inode, _)| sockets.contains(*inode))
        .map(|(_, name)| name)
        .collect();
    names.iter().all(|name| listening.contains(name))
}

/// The inode numbers of a process's sockets.
fn sockets_of(pid: u32) -> HashSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets =
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    targets
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// The inode and the name in the line of a listening socket: `Num RefCount Protocol Flags Type St Inode Path`.
fn entry(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let (inode, name) = (fields.nth(2)?, fields.next()?);
    (flags & LISTENS != 0).then_some((inode, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_listening_socket_counts() {
        let line = "ffff0: 00000002 00000000 00010000 0001 01 12345 vhost.sock";
        assert_eq!(entry(line), Some(("12345", "vhost.sock")));
        assert_eq!(entry("ffff0: 00000003 00000000 00000000 0001 03 12345 vhost.sock"), None);
        assert_eq!(entry("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_listening_process_is_found_by_the_name_that_it_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let name = path.to_str().unwrap();
        assert!(!listens(std::process::id(), &[name]));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(listens(std::process::id(), &[name]));
        assert!(!listens(1, &[name]));
    }
}
