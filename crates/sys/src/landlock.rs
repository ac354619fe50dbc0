//! Signals that reach nobody else, and a root that is read everywhere and written only where it is told (Landlock,
//! `linux/landlock.h`).
//!
//! Its law: what is taken away is taken from the calling process and all that comes from it, for good. Where places are
//! named, every right to change a file that this kernel knows is taken away, and given back below them only. Abstract unix
//! sockets are left alone: services speak to the supervisor over some.

#![expect(unsafe_code, reason = "the three Landlock system calls have no wrapper in libc or rustix")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_long, c_void};

/// The rights to change something, by the ABI version that brought them: `LANDLOCK_ACCESS_FS_*`, bits from 1.
/// Version 1: write a file, remove a folder or a file, make any of seven kinds of file. Version 2: rename and link between
/// folders. Version 3: truncate. Later ones are about devices and networks, which are confined by other means.
const WRITE_RIGHTS: [(c_long, u64); 3] = [(1, (1 << 1) | (0x1ff << 4)), (2, 1 << 13), (3, 1 << 14)];

/// The rights that make sense for something that is no folder: write a file, truncate.
const FILE_RIGHTS: u64 = (1 << 1) | (1 << 14);

/// `LANDLOCK_CREATE_RULESET_VERSION`: asks for the ABI's version.
const ASK_VERSION: u32 = 1;

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// `LANDLOCK_SCOPE_SIGNAL`, of version 6 (Linux 6.12): signals reach those only that are under the same restriction.
const SCOPE_SIGNAL: u64 = 1 << 1;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// Keeps the signals of this process, and of all that comes from it, among themselves. Where `places` are given, everything is
/// read-only to them but what lies at or below these.
///
/// Errors: `E2BIG` where the kernel is older than 6.12, `EOPNOTSUPP` or `ENOSYS` where it has no Landlock, `EPERM` without
/// no-new-privileges.
pub fn confine(places: Option<&[OwnedFd]>) -> io::Result<()> {
    let rights = if places.is_some() { write_rights(version()?) } else { 0 };
    let ruleset = create(rights)?;
    for place in places.unwrap_or_default() {
        let folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_dir();
        allow(&ruleset, place, if folder { rights } else { rights & FILE_RIGHTS })?;
    }
    // SAFETY: takes a ruleset and no flags; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn version() -> io::Result<c_long> {
    let nothing: *const c_void = ptr::null();
    // SAFETY: with this flag nothing is read, and no descriptor is made.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, ASK_VERSION) })
}

fn write_rights(version: c_long) -> u64 {
    WRITE_RIGHTS.iter().filter(|(since, _)| *since <= version).fold(0, |all, (_, rights)| all | rights)
}

fn create(rights: u64) -> io::Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs: rights, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    let (at, size) = (ptr::from_ref(&attr), size_of::<RulesetAttr>());
    // SAFETY: `attr` is live and `size` its size; the kernel only reads it.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, at, size, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(ruleset: &OwnedFd, place: &OwnedFd, rights: u64) -> io::Result<()> {
    let attr = PathBeneathAttr { allowed_access: rights, parent_fd: place.as_fd().as_raw_fd() };
    let (ruleset, at) = (ruleset.as_raw_fd(), &raw const attr);
    // SAFETY: `attr` is live and has the layout of the rule type named; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, at, 0) })?;
    Ok(())
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_kernels_take_more_rights_away() {
        assert_eq!(write_rights(1), 0b1_1111_1111_0010);
        assert_eq!(write_rights(3), 0b111_1111_1111_0010);
        assert_eq!(write_rights(9), write_rights(3));
    }

    #[test]
    fn a_process_writes_only_below_its_places() {
        if version().unwrap_or_default() < 6 {
            // This machine's kernel has no such Landlock: the enclave's has, and is tested by booting it.
            return;
        }
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            confine(Some(&[std::fs::File::open(inside.path()).unwrap().into()])).unwrap();
            std::fs::write(inside.path().join("new"), "x").unwrap();
            assert_eq!(
                std::fs::write(outside.path().join("new"), "x").unwrap_err().kind(),
                io::ErrorKind::PermissionDenied
            );
            assert!(std::fs::read_dir(outside.path()).is_ok());
        })
        .join()
        .unwrap();
    }
}
