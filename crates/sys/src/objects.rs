//! Kernel objects that are counted and have no call in rustix: System V shared memory, POSIX queues, fanotify
//! groups.
//!
//! Its law: each call makes one object. What has no descriptor lasts until its namespace or its process ends.

#![expect(unsafe_code, reason = "rustix has no call for these")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_int, c_long};

/// The mode of what is made: its maker's alone.
const MODE: c_int = 0o600;

/// A segment of shared memory without a name, in this IPC namespace until that ends.
///
/// Errors: `ENOSPC` when the namespace has as many as it may.
pub fn shared_memory(bytes: usize) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | MODE) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A POSIX queue of this name, which begins with a slash.
///
/// Errors: `ENOSPC` and `EMFILE` when there are as many as there may be.
pub fn message_queue(name: &CStr) -> io::Result<OwnedFd> {
    let attributes = std::ptr::null::<libc::mq_attr>();
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: `name` ends with a zero byte; the mode has the width that is read, and no attributes stand for the defaults.
    let fd = unsafe { libc::mq_open(name.as_ptr(), flags, MODE, attributes) };
    owned(c_long::from(fd))
}

/// A fanotify group that any user may make: it reports by handles of files.
///
/// Errors: `EMFILE` when the user has as many as it may.
pub fn fanotify_group() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLOEXEC | libc::FAN_REPORT_FID;
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_fanotify_init, flags, libc::O_RDONLY) };
    owned(fd)
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let Some(fd) = c_int::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel gave this descriptor a moment ago, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_slash_is_refused() {
        assert_eq!(message_queue(c"").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn shared_memory_of_no_bytes_is_refused() {
        assert_eq!(shared_memory(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
