//! The application's root: its read-only image below, a bounded writable layer above.
//!
//! Its law: nothing of it is written before the services start, and what they write goes to memory of a set size. It is put
//! together while the supervisor starts; the size, which the manifest names, is set when the supervisor has read it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

use crate::boot::{Boot, BootError};

/// Where the root is put together.
pub const ROOT: &str = "/run/cloister/root";

/// The application as an EROFS image in ramdisk 2, mounted from the file itself (`EROFS_FS_BACKED_BY_FILE`).
const IMAGE: &str = "/cloister/root.erofs";

/// The application as a plain tree in ramdisk 2.
const TREE: &str = "/cloister/root";

/// Where the image is mounted.
pub const LOWER: &str = "/run/cloister/lower";

/// The tmpfs that holds what services write.
pub const WRITABLE: &str = "/run/cloister/writable";

/// How the tmpfs is mounted.
const WRITABLE_FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID);

/// Makes files of the overlay one thing each: with an index, names that are linked stay linked when they are copied up, and with
/// handles a file has one number for good (`Documentation/filesystems/overlayfs.rst`, "Index" and "NFS export"). Where the lower
/// file system gives no handles, as ramfs does below a plain tree, the kernel goes on without.
const IDENTITY: &str = "index=on,nfs_export=on";

/// What the writable part may hold until the manifest's size is known: the overlay's own folders, which take no block.
const FIRST_BYTES: u64 = 64 * 1024;

/// The least number of files: the overlay's own folders, and a service's few sockets and pid files where the manifest gives it
/// next to no bytes.
const LEAST_FILES: u64 = 1024;

/// A root that cannot be put together.
#[derive(Debug)]
pub enum RootError {
    /// Ramdisk 2 has neither form of it.
    Missing,
    /// A step failed at this path.
    Step(&'static str, io::Error),
}

impl std::fmt::Display for RootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "the image has no application root ({IMAGE} or {TREE})"),
            Self::Step(path, error) => write!(f, "{path}: {error}"),
        }
    }
}

impl std::error::Error for RootError {}

/// Stage `root`: puts the root together at [`ROOT`], with next to no room for what services write.
pub fn assemble(_: &mut Boot) -> Result<String, BootError> {
    let lower = mount().map_err(BootError::Root)?;
    Ok(if lower == LOWER { "EROFS" } else { "tree" }.to_owned())
}

/// Sets the room for what services write.
pub fn allow(writable_bytes: u64) -> Result<(), RootError> {
    let data = size(writable_bytes).map_err(|error| RootError::Step(WRITABLE, error))?;
    mount_remount(WRITABLE, WRITABLE_FLAGS, data.as_c_str())
        .map_err(|error| RootError::Step(WRITABLE, error.into()))
}

fn mount() -> Result<&'static str, RootError> {
    let lower = lower()?;
    let data = size(FIRST_BYTES).map_err(|error| RootError::Step(WRITABLE, error))?;
    attach("tmpfs", "tmpfs", WRITABLE, WRITABLE_FLAGS, &data)?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    fs::create_dir_all(&work).map_err(|error| RootError::Step(WRITABLE, error))?;
    like(Path::new(lower), Path::new(&upper)).map_err(|error| RootError::Step(WRITABLE, error))?;
    let layers = CString::new(format!("lowerdir={lower},upperdir={upper},workdir={work},{IDENTITY}"))
        .map_err(|error| RootError::Step(ROOT, error.into()))?;
    attach("overlay", "overlay", ROOT, MountFlags::NODEV, &layers)?;
    Ok(lower)
}

/// The options that bound a tmpfs: its bytes, and a file for each 4 KiB of them, as a block of memory holds at least one. What
/// the kernel takes for itself, half of the machine's pages, would let empty files fill memory that no `size` counts.
#[must_use]
pub fn bounds(bytes: u64) -> String {
    format!("size={bytes},nr_inodes={}", (bytes / 4096).max(LEAST_FILES))
}

/// The tmpfs's options.
fn size(bytes: u64) -> io::Result<CString> {
    Ok(CString::new(format!("mode=0700,{}", bounds(bytes)))?)
}

fn lower() -> Result<&'static str, RootError> {
    if Path::new(IMAGE).exists() {
        attach(IMAGE, "erofs", LOWER, MountFlags::RDONLY | MountFlags::NODEV, c"")?;
        return Ok(LOWER);
    }
    if Path::new(TREE).is_dir() { Ok(TREE) } else { Err(RootError::Missing) }
}

fn attach(
    source: &str,
    kind: &str,
    target: &'static str,
    flags: MountFlags,
    data: &CStr,
) -> Result<(), RootError> {
    let mount = || {
        fs::create_dir_all(target)?;
        Ok(rustix::mount::mount(source, target, kind, flags, Some(data))?)
    };
    mount().map_err(|error| RootError::Step(target, error))
}

/// Makes `upper` with the owner and mode of the image's own root, which it stands in for.
fn like(lower: &Path, upper: &Path) -> io::Result<()> {
    let model = fs::metadata(lower)?;
    fs::create_dir(upper)?;
    chown(upper, Some(model.uid()), Some(model.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(model.mode() & 0o7777))
}
