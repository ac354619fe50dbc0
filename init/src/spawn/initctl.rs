//! The program by which a service speaks to the supervisor, shown in every service's view.
//!
//! Its law: it is the ramdisk's own file, mounted read-only, never a copy in the application's root. Who may ask for what is
//! the supervisor's to judge, by the socket; seeing the program gives nobody a right.

use std::io;
use std::os::fd::OwnedFd;

use cloister_sys::mounts::set_read_only;
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::places;

/// Where it is in ramdisk 1.
const PROGRAM: &str = "/sbin/initctl";

/// Where services find it: a folder of that name is nobody else's, and `/run` is where such programs are put (podman's
/// `/run/podman-init`). The builder makes the place and has it pinned.
const PLACE: &str = "/run/cloister/initctl";

/// The program as a mount that is nowhere yet: taken while the ramdisk is in view. A ramdisk without the program has none.
pub(super) fn take() -> io::Result<Option<OwnedFd>> {
    match places::take(CWD, PROGRAM, OpenTreeFlags::empty()) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts it into the view.
pub(super) fn place(tree: &OwnedFd) -> io::Result<()> {
    set_read_only(tree, true)?;
    places::mount_on(tree, &places::open(PLACE)?)
}
