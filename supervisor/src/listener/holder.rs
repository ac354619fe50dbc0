//! Which process of a cgroup holds a socket.
//!
//! Its law: a socket is a service's if one of its processes has it open. What cannot be looked at, or is more than would be
//! looked at, is not the service's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Most descriptors of a service that one look-up reads. Listeners are opened early and by the first process, and descriptors
/// are read in the order of both; a service that opens ten thousands of files before it listens is not looked at to the end.
/// A process counts as one more.
const MAX_DESCRIPTORS: usize = 32_768;

/// A descriptor that is a socket's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    descriptor: PathBuf,
    inode: u64,
}

impl Holder {
    /// Whether the descriptor is that socket's still. Numbers of sockets are not used twice while one is open.
    pub(super) fn holds(&self) -> bool {
        socket(&self.descriptor) == Some(self.inode)
    }
}

/// A holder of each of these sockets that a process of `cgroup` has open: as they are known, or found anew.
pub(super) fn find(
    proc: &Path,
    cgroup: &Path,
    known: &[Holder],
    mut inodes: BTreeSet<u64>,
) -> io::Result<BTreeMap<u64, Holder>> {
    let mut found = BTreeMap::new();
    for holder in known {
        if inodes.contains(&holder.inode) && holder.holds() {
            inodes.remove(&holder.inode);
            found.insert(holder.inode, holder.clone());
        }
    }
    let mut left = MAX_DESCRIPTORS;
    if inodes.is_empty() {
        return Ok(found);
    }
    for pid in members(cgroup)? {
        left = left.saturating_sub(1);
        // A process that has ended meanwhile holds nothing.
        let Ok(descriptors) = std::fs::read_dir(proc.join(pid.to_string()).join("fd")) else { continue };
        for descriptor in descriptors.filter_map(Result::ok).map(|entry| entry.path()) {
            if inodes.is_empty() || left == 0 {
                return Ok(found);
            }
            left = left.saturating_sub(1);
            if let Some(inode) = socket(&descriptor)
                && inodes.remove(&inode)
            {
                found.insert(inode, Holder { descriptor, inode });
            }
        }
    }
    Ok(found)
}

/// The processes of a cgroup, oldest first as far as numbers tell. None of one that is gone.
fn members(cgroup: &Path) -> io::Result<BTreeSet<u32>> {
    match std::fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(list) => Ok(list.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// The number of the socket that a descriptor is: `socket:[4711]` (`proc_pid_fd(5)`).
fn socket(descriptor: &Path) -> Option<u64> {
    let target = std::fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
