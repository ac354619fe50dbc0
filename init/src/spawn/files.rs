//! Read-only files that a service finds in its root.
//!
//! Its law: the root itself is not changed but for an empty file to mount over, and the content lies in memory of its own
//! that only this service's view has.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use cloister_wire::hold;
use rustix::mount::{MountFlags, UnmountFlags};

use super::At;
use crate::hold::Failure;

/// Where the contents are put together, out of the way, and gone before the program starts.
const STAGE: &str = "/dev/.files";

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts each file at its path.
pub(super) fn mount(list: &[hold::File], uid: u32, gid: u32) -> Result<(), Failure> {
    if list.is_empty() {
        return Ok(());
    }
    stage().at("files", STAGE)?;
    for (number, file) in list.iter().enumerate() {
        let staged = Path::new(STAGE).join(number.to_string());
        write(&staged, file, uid, gid).at("files", &file.path)?;
        cover(&staged, Path::new(&file.path)).at("files", &file.path)?;
    }
    unstage().at("files", STAGE)
}

fn stage() -> io::Result<()> {
    fs::create_dir(STAGE)?;
    Ok(rustix::mount::mount("tmpfs", STAGE, "tmpfs", SAFE, c"mode=0700")?)
}

/// The mounted files keep their memory; only the folder that listed them goes.
fn unstage() -> io::Result<()> {
    rustix::mount::unmount(STAGE, UnmountFlags::DETACH)?;
    fs::remove_dir(STAGE)
}

fn write(path: &Path, file: &hold::File, uid: u32, gid: u32) -> io::Result<()> {
    File::create_new(path)?.write_all(file.content.as_bytes())?;
    fs::set_permissions(path, Permissions::from_mode(file.mode & 0o777))?;
    chown(path, Some(uid), Some(gid))
}

fn cover(staged: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create(target)?;
    }
    rustix::mount::mount_bind(staged, target)?;
    Ok(rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | SAFE, "")?)
}
