//! `initctl`, the program with which a service talks to the supervisor, in every service's view.
//!
//! Invariant: it is the ramdisk's own file, mounted read-only, never a copy in the application's root. The supervisor
//! authorizes requests by their socket; access to the program grants no rights.

use std::io;
use std::os::fd::OwnedFd;

use cloister_sys::mounts::set_read_only;
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::places;

/// Where it is in ramdisk 1.
const PROGRAM: &str = "/sbin/initctl";

/// Where services find it: no image uses a directory of this name, and `/run` is usual for such programs (podman's
/// `/run/podman-init`). The builder creates the mount point and pins it.
const PLACE: &str = "/run/cloister/initctl";

/// The program as a detached mount, created while the ramdisk is visible. `None` if the ramdisk does not contain it.
pub(super) fn take() -> io::Result<Option<OwnedFd>> {
    match places::take(CWD, PROGRAM, OpenTreeFlags::empty()) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Mounts it in the view.
pub(super) fn place(tree: &OwnedFd) -> io::Result<()> {
    set_read_only(tree, true)?;
    places::mount_on(tree, &places::open(PLACE)?)
}
