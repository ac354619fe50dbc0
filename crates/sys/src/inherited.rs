//! Descriptors inherited from the parent process.
//!
//! Invariant: callers get a duplicate with a new number, so no descriptor with another owner is ever used or closed.
//! The inherited descriptor itself stays open for the lifetime of the program. Callers must know what a number refers
//! to.

#![expect(
    unsafe_code,
    reason = "rustix and std accept a raw number only if it is known to be open, which is checked here"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The lowest number of a duplicate: above stdin, stdout, stderr and the one descriptor that init passes on.
const LOWEST: RawFd = 4;

/// A duplicate of the descriptor `number`, close-on-exec.
///
/// Errors: `EBADF` if that number is not open, `EMFILE`.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes only integers; a number that is not open is refused.
    let copied = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, LOWEST) };
    if copied < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(copied) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_duplicate_is_the_same_socket_under_another_number() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut copied = UnixStream::from(copy(ours.as_raw_fd()).unwrap());
        assert_ne!(copied.as_raw_fd(), ours.as_raw_fd());
        copied.write_all(b"x").unwrap();
        let mut byte = [0];
        theirs.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_number_that_is_not_open_is_an_error() {
        assert_eq!(copy(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
