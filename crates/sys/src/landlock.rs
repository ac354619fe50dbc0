//! Signals that reach nobody else (Landlock, `linux/landlock.h`).
//!
//! Its law: what is taken away is taken from the calling process and all that comes from it, for good. Files are not its
//! matter: Landlock lets modes, owners, times and attributes be changed everywhere, so a read-only root is a mount's. Abstract
//! unix sockets are left alone: services speak to the supervisor over some.

#![expect(unsafe_code, reason = "the Landlock system calls have no wrapper in libc or rustix")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::c_long;

/// `LANDLOCK_SCOPE_SIGNAL`, of version 6 (Linux 6.12): signals reach those only that are under the same restriction.
const SCOPE_SIGNAL: u64 = 1 << 1;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Keeps the signals of this process, and of all that comes from it, among themselves.
///
/// Errors: `E2BIG` where the kernel is older than 6.12, `EOPNOTSUPP` or `ENOSYS` where it has no Landlock, `EPERM` without
/// no-new-privileges.
pub fn confine() -> io::Result<()> {
    let attr = RulesetAttr { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    let (at, size) = (ptr::from_ref(&attr), size_of::<RulesetAttr>());
    // SAFETY: `attr` is live and `size` its size; the kernel only reads it.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, at, size, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes a ruleset and no flags; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
