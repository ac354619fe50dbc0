//! Makes a mount tree read-only or writable (`mount_setattr(2)`).
//!
//! Invariant: a mount is identified by a descriptor, never by a path that could refer to another mount by now.

#![expect(unsafe_code, reason = "mount_setattr has no wrapper in libc or rustix")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// `struct mount_attr` (`linux/mount.h`).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY` (`linux/mount.h`).
const READ_ONLY: u64 = 1;

/// `AT_RECURSIVE` (`linux/fcntl.h`).
const RECURSIVE: u32 = 0x8000;

/// Makes `mount` and the mounts below it read-only, or writable again. This includes modes, owners, times and extended
/// attributes.
///
/// Errors: `EINVAL` if `mount` is not the root of a mount, `EPERM` without `CAP_SYS_ADMIN`.
pub fn set_read_only(mount: impl AsFd, read_only: bool) -> io::Result<()> {
    let (attr_set, attr_clr) = if read_only { (READ_ONLY, 0) } else { (0, READ_ONLY) };
    let attr = MountAttr { attr_set, attr_clr, ..MountAttr::default() };
    let flags = RECURSIVE | u32::try_from(libc::AT_EMPTY_PATH).map_err(io::Error::other)?;
    let (mount, at, size) = (mount.as_fd().as_raw_fd(), ptr::from_ref(&attr), size_of::<MountAttr>());
    // SAFETY: the path is a NUL-terminated string and `attr` is live, with `size` its size; the kernel only reads them.
    let done = unsafe { libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, at, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
