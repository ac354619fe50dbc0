//! Descriptors that were open when this program began.
//!
//! Its law: what is handed out is a copy with a number of its own, so nobody else's descriptor is ever taken or closed. The
//! inherited number itself stays open for the life of the program. It leaves knowing what is behind a number to the caller.

#![expect(
    unsafe_code,
    reason = "rustix and std take a number only on the promise that it is open, which is asked here"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The lowest number a copy gets: past stdin, stdout and stderr, and past the one number that init hands over.
const LOWEST: RawFd = 4;

/// A copy of the descriptor `number`, closed on exec.
///
/// Errors: `EBADF` when nothing is open under that number, `EMFILE`.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers only; a number that is not open is refused.
    let copied = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, LOWEST) };
    if copied < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copied) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_copy_is_the_same_socket_under_another_number() {
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
