//! The application's root: its read-only image below, a bounded writable layer above.
//!
//! Invariant: nothing in it is written before the services start, and their writes go to memory of a fixed size. It is
//! assembled while the supervisor starts; the size, which the manifest specifies, is set once the supervisor has read it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

use crate::boot::{Boot, BootError};

/// Where the root is assembled.
pub const ROOT: &str = "/run/cloister/root";

/// The application as an EROFS image in ramdisk 2, mounted from the file itself (`EROFS_FS_BACKED_BY_FILE`).
const IMAGE: &str = "/cloister/root.erofs";

/// The application as a plain tree in ramdisk 2.
const TREE: &str = "/cloister/root";

/// Where the image is mounted.
pub const LOWER: &str = "/run/cloister/lower";

/// The tmpfs that holds what services write.
pub const WRITABLE: &str = "/run/cloister/writable";

/// The mount flags of the tmpfs.
const WRITABLE_FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID);

/// Gives files of the overlay a stable identity: with an index, hard links survive the copy-up, and with file handles a file
/// keeps its inode number (`Documentation/filesystems/overlayfs.rst`, "Index" and "NFS export"). If the lower file system has
/// no file handles, such as ramfs below a plain tree, the kernel continues without them.
const IDENTITY: &str = "index=on,nfs_export=on";

/// Size of the writable part until the manifest's is known: enough for the overlay's own directories, which take no block.
const FIRST_BYTES: u64 = 64 * 1024;

/// The minimum number of files: the overlay's own directories, and a service's few sockets and pid files if the manifest gives
/// it almost no bytes.
const MIN_FILES: u64 = 1024;

/// Why the root cannot be assembled.
#[derive(Debug)]
pub enum RootError {
    /// Ramdisk 2 contains the root in neither form.
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

/// Stage `root`: assembles the root at [`ROOT`], with minimal space for the writes of services.
pub fn assemble(_: &mut Boot) -> Result<String, BootError> {
    let lower = mount().map_err(BootError::Root)?;
    Ok(if lower == LOWER { "EROFS" } else { "tree" }.to_owned())
}

/// Sets the space for the writes of services.
pub fn set_size(writable_bytes: u64) -> Result<(), RootError> {
    let data = options(writable_bytes).map_err(|error| RootError::Step(WRITABLE, error))?;
    mount_remount(WRITABLE, WRITABLE_FLAGS, data.as_c_str())
        .map_err(|error| RootError::Step(WRITABLE, error.into()))
}

fn mount() -> Result<&'static str, RootError> {
    let lower = lower()?;
    let data = options(FIRST_BYTES).map_err(|error| RootError::Step(WRITABLE, error))?;
    attach("tmpfs", "tmpfs", WRITABLE, WRITABLE_FLAGS, &data)?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    fs::create_dir_all(&work).map_err(|error| RootError::Step(WRITABLE, error))?;
    make_upper(Path::new(lower), Path::new(&upper)).map_err(|error| RootError::Step(WRITABLE, error))?;
    let layers = CString::new(format!("lowerdir={lower},upperdir={upper},workdir={work},{IDENTITY}"))
        .map_err(|error| RootError::Step(ROOT, error.into()))?;
    attach("overlay", "overlay", ROOT, MountFlags::NODEV, &layers)?;
    Ok(lower)
}

/// The options that bound a tmpfs: its bytes, and one file per 4 KiB of them, the size of a page. The kernel's default, half as
/// many files as the machine has pages, would let empty files fill memory that `size` does not count.
#[must_use]
pub fn bounds(bytes: u64) -> String {
    format!("size={bytes},nr_inodes={}", (bytes / 4096).max(MIN_FILES))
}

/// The mount options of the tmpfs.
fn options(bytes: u64) -> io::Result<CString> {
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

/// Creates `upper` with the owner and mode of the image's own root, which it replaces.
fn make_upper(lower: &Path, upper: &Path) -> io::Result<()> {
    let model = fs::metadata(lower)?;
    fs::create_dir(upper)?;
    chown(upper, Some(model.uid()), Some(model.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(model.mode() & 0o7777))
}
