//! Places in a service's view: opened by a path without links, pinned, and made read-only with exceptions.
//!
//! Invariant: services share the root, so another service may change what is at a path between two lookups. A path is opened
//! once, no link in it is followed, and everything then uses the opened descriptor. A pinned place cannot change any more: the
//! kernel refuses to remove or rename a mount point of the caller's mount namespace, and every service's view pins the same
//! places.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cloister_sys::mounts::set_read_only;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Mounts the file or directory at `path`, with all mounts below it, over itself.
pub(super) fn pin(path: &str) -> io::Result<()> {
    let place = open(path)?;
    let flags = OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    mount_on(&take(&place, "", flags)?, &place)
}

/// Makes the whole view read-only, except at and below `writable`. Nothing but the root and its pins is mounted yet.
pub(super) fn protect(writable: &[String]) -> io::Result<()> {
    writable.iter().try_for_each(|path| pin(path))?;
    set_read_only(open("/")?, true)?;
    writable.iter().try_for_each(|path| set_read_only(open(path)?, false))
}

/// Opens `path`; the link itself if it is one.
pub(super) fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// Clones what is at `path`, relative to `from`, as a detached mount.
pub(super) fn take(from: impl AsFd, path: &str, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(from, path, flags)?)
}

/// Attaches a detached mount at an opened place.
pub(super) fn mount_on(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", place, "", flags)?)
}
