//! The application's root: its read-only image below, a bounded writable layer above.
//!
//! Its law: nothing of it is written before the services start, and what they write goes to memory of a set size.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::MountFlags;

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

/// Puts the root together at [`ROOT`] with `writable_bytes` for what services write.
pub fn mount(writable_bytes: u64) -> Result<(), RootError> {
    let lower = lower()?;
    attach(
        "tmpfs",
        WRITABLE,
        MountFlags::NODEV | MountFlags::NOSUID,
        &format!("mode=0700,size={writable_bytes}"),
    )?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    fs::create_dir_all(&work).map_err(|error| RootError::Step(WRITABLE, error))?;
    like(Path::new(lower), Path::new(&upper)).map_err(|error| RootError::Step(WRITABLE, error))?;
    attach("overlay", ROOT, MountFlags::NODEV, &format!("lowerdir={lower},upperdir={upper},workdir={work}"))
}

fn lower() -> Result<&'static str, RootError> {
    if Path::new(IMAGE).exists() {
        attach_from(IMAGE, "erofs", LOWER, MountFlags::RDONLY | MountFlags::NODEV, "")?;
        return Ok(LOWER);
    }
    if Path::new(TREE).is_dir() { Ok(TREE) } else { Err(RootError::Missing) }
}

fn attach(kind: &str, target: &'static str, flags: MountFlags, data: &str) -> Result<(), RootError> {
    attach_from(kind, kind, target, flags, data)
}

fn attach_from(
    source: &str,
    kind: &str,
    target: &'static str,
    flags: MountFlags,
    data: &str,
) -> Result<(), RootError> {
    let mount = || {
        fs::create_dir_all(target)?;
        let data = CString::new(data)?;
        Ok(rustix::mount::mount(source, target, kind, flags, Some(data.as_c_str()))?)
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
