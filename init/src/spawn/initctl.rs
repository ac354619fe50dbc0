//! The program by which a service speaks to the supervisor, shown in every service's view.
//!
//! Its law: it is the ramdisk's own file, mounted read-only, never a copy in the application's root. Who may ask for what is
//! the supervisor's to judge, by the socket; seeing the program gives nobody a right.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags};

/// Where it is in ramdisk 1.
const PROGRAM: &str = "/sbin/initctl";

/// Where services find it: a folder of that name is nobody else's, and `/run` is where such programs are put (podman's
/// `/run/podman-init`).
const PLACE: &str = "/run/cloister/initctl";

/// Nothing it does needs more.
const FLAGS: MountFlags =
    MountFlags::BIND.union(MountFlags::RDONLY).union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// The program as a mount that is nowhere yet: taken while the ramdisk is in view. A ramdisk without the program has none.
pub(super) fn take() -> io::Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match rustix::mount::open_tree(CWD, PROGRAM, flags) {
        Ok(tree) => Ok(Some(tree)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts it into the view, over an empty file in the application's root.
pub(super) fn place(tree: impl AsFd) -> io::Result<()> {
    let place = Path::new(PLACE);
    if !place.exists() {
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::File::create(place)?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, PLACE, flags)?;
    Ok(rustix::mount::mount_remount(PLACE, FLAGS, "")?)
}
