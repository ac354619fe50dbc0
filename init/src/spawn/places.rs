//! Places in a service's view: opened by a path without links, pinned, and made read-only but for some.
//!
//! Its law: services share the root, so between two looks at a path another service may have changed what is there. A path is
//! opened once, no link in it is followed, and what happens then happens to what was opened. What is pinned cannot change any
//! more: the kernel refuses to remove or rename a name that something is mounted on in the mount namespace of who asks, and
//! every service's view pins the same.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cloister_sys::mounts::set_read_only;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Mounts what is at `path`, a folder with all that is mounted below it, over itself.
pub(super) fn pin(path: &str) -> io::Result<()> {
    let place = open(path)?;
    let flags = OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    mount_on(&take(&place, "", flags)?, &place)
}

/// Makes the whole view read-only, except what lies at or below `writable`. Nothing but the root and its pins is mounted yet.
pub(super) fn protect(writable: &[String]) -> io::Result<()> {
    writable.iter().try_for_each(|path| pin(path))?;
    set_read_only(open("/")?, true)?;
    writable.iter().try_for_each(|path| set_read_only(open(path)?, false))
}

/// What is at `path`, itself where it is a link.
pub(super) fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// What is at `path`, seen from `from`, as a mount that is nowhere yet.
pub(super) fn take(from: impl AsFd, path: &str, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(from, path, flags)?)
}

/// Mounts what was taken on what was opened.
pub(super) fn mount_on(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", place, "", flags)?)
}
