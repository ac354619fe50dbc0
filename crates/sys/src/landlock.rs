//! Restriction of signals (Landlock, `linux/landlock.h`).
//!
//! Invariant: the restriction applies permanently to the calling process and all its descendants. It does not cover
//! files: Landlock does not restrict changes of modes, owners, times and attributes, so a read-only root needs a
//! read-only mount. Abstract Unix sockets are not restricted either: services use them to talk to the supervisor.

#![expect(unsafe_code, reason = "the Landlock system calls have no wrapper in libc or rustix")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::c_long;

/// `LANDLOCK_SCOPE_SIGNAL`, of ABI version 6 (Linux 6.12): signals can only be sent to processes under the same
/// restriction.
const SCOPE_SIGNAL: u64 = 1 << 1;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Restricts this process and its descendants to sending signals among themselves.
///
/// Errors: `E2BIG` before Linux 6.12, `EOPNOTSUPP` or `ENOSYS` in a kernel without Landlock, `EPERM` without
/// no-new-privileges.
pub fn confine() -> io::Result<()> {
    let attr = RulesetAttr { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    let (at, size) = (ptr::from_ref(&attr), size_of::<RulesetAttr>());
    // SAFETY: `attr` is live and `size` its size; the kernel only reads it.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, at, size, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just created this descriptor, and it has no other owner.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes a ruleset and no flags; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
