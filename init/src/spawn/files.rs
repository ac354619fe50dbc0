//! Files that are mounted into a service's root.
//!
//! Invariant: the root itself is not changed: the builder created an empty file as mount point if the image has none, and the
//! content is in memory that only this service's view contains. A mount point is created here only in the service's own
//! temporary directories, where no other process can place a link.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use cloister_sys::mounts::set_read_only;
use cloister_wire::hold;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags};

use super::{At, places};
use crate::hold::Failure;

/// Where the files are prepared; removed before the program starts.
const STAGE: &str = "/dev/.files";

/// The mount flags of the stage. Its size bounds what root can write to such files, and exceeds a manifest's 512 KiB in whole
/// pages: at most 200 places are pinned.
const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts each file at its path.
pub(super) fn mount(list: &[hold::File], uid: u32, gid: u32) -> Result<(), Failure> {
    if list.is_empty() {
        return Ok(());
    }
    stage().at("files", STAGE)?;
    for (number, file) in list.iter().enumerate() {
        let staged = format!("{STAGE}/{number}");
        let owner = if file.writable { (0, 0) } else { (uid, gid) };
        write(&staged, file, owner).at("files", &file.path)?;
        cover(&staged, file).at("files", &file.path)?;
    }
    unstage().at("files", STAGE)
}

fn stage() -> io::Result<()> {
    fs::create_dir(STAGE)?;
    Ok(rustix::mount::mount("tmpfs", STAGE, "tmpfs", SAFE, c"mode=0700,size=2m")?)
}

/// The mounted files keep their memory; only the directory is removed.
fn unstage() -> io::Result<()> {
    rustix::mount::unmount(STAGE, UnmountFlags::DETACH)?;
    fs::remove_dir(STAGE)
}

fn write(path: &str, file: &hold::File, (uid, gid): (u32, u32)) -> io::Result<()> {
    File::create_new(path)?.write_all(file.content.as_bytes())?;
    fs::set_permissions(path, Permissions::from_mode(file.mode & 0o777))?;
    chown(path, Some(uid), Some(gid))
}

fn cover(staged: &str, file: &hold::File) -> io::Result<()> {
    let tree = places::take(CWD, staged, OpenTreeFlags::empty())?;
    if !file.writable {
        set_read_only(&tree, true)?;
    }
    let place = match places::open(&file.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = Path::new(&file.path).parent() {
                fs::create_dir_all(directory)?;
            }
            File::create_new(&file.path)?.into()
        }
        found => found?,
    };
    places::mount_on(&tree, &place)
}
