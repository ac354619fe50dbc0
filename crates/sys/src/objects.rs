//! Kernel objects with limits on their number that rustix cannot create: System V shared memory, POSIX message queues,
//! fanotify groups.
//!
//! Invariant: each call creates one object. An object without a descriptor exists until its namespace or process ends.

#![expect(unsafe_code, reason = "rustix has no function for these")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_int, c_long};

/// The mode of created objects: accessible only to their owner.
const MODE: c_int = 0o600;

/// Creates an unnamed shared memory segment, which exists as long as this IPC namespace.
///
/// Errors: `ENOSPC` at the namespace's limit.
pub fn shared_memory(bytes: usize) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | MODE) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Creates a POSIX message queue with this name, which must start with a slash.
///
/// Errors: `ENOSPC` and `EMFILE` at a limit.
pub fn message_queue(name: &CStr) -> io::Result<OwnedFd> {
    let attributes = std::ptr::null::<libc::mq_attr>();
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: `name` ends with a zero byte; the mode has the width that is read, and a null pointer selects default
    // attributes.
    let fd = unsafe { libc::mq_open(name.as_ptr(), flags, MODE, attributes) };
    owned(c_long::from(fd))
}

/// Creates a fanotify group of the kind available to unprivileged users: it reports file handles.
///
/// Errors: `EMFILE` at the user's limit.
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
    // SAFETY: the kernel just created this descriptor, and it has no other owner.
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
