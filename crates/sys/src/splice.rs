//! Moves bytes between descriptors in the kernel, through a pipe.
//!
//! Invariant: no call blocks on a pipe created here, and none raises a signal. The caller waits for readiness. rustix
//! has a safe function for each call; this module adds the flags and the retry after a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

/// A new pipe as (read end, write end), both non-blocking and close-on-exec.
///
/// Errors: `EMFILE` and `ENFILE`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// Sets the capacity of a pipe to at least `bytes` and returns the new capacity: the kernel rounds up to a power of two
/// of pages.
///
/// Errors: `EPERM` over `/proc/sys/fs/pipe-max-size` (1 MiB by default) or over the user's limit on pipe memory,
/// `EBUSY` if the pipe currently contains more than `bytes`.
pub fn set_pipe_size(pipe: impl AsFd, bytes: usize) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_setpipe_size(pipe, bytes)?)
}

/// The capacity of a pipe in bytes, if every write fills its pages.
pub fn pipe_size(pipe: impl AsFd) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_getpipe_size(pipe)?)
}

/// Number of bytes that can be read from a pipe or a TCP or Unix socket without blocking (`FIONREAD`).
///
/// Errors: `EOPNOTSUPP` or `ENOTTY` on vsock before Linux 6.17.
pub fn readable(fd: impl AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(fd)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Moves at most `max` bytes; `from` or `to` must be a pipe. The position of a file advances. Returns 0 at the end of
/// `from`.
///
/// `more` means that further bytes follow immediately, so that a TCP socket fills its segments (`SPLICE_F_MORE`).
///
/// Errors: `WouldBlock` if the pipe is empty or full, or a non-blocking socket is not ready; `EINVAL` if neither is a
/// pipe, or the file was opened for appending. A descriptor in blocking mode that is not a pipe can block.
pub fn splice(from: impl AsFd, to: impl AsFd, max: usize, more: bool) -> io::Result<usize> {
    let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    flags.set(SpliceFlags::MORE, more);
    let (from, to) = (from.as_fd(), to.as_fd());
    Ok(rustix::io::retry_on_intr(|| rustix::pipe::splice(from, None, to, None, max, flags))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_from_a_pipe_to_a_file_and_move_its_position() {
        let (reader, writer) = pipe().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        rustix::io::write(&writer, b"one two").unwrap();
        assert_eq!(splice(&reader, &file, 4, false).unwrap(), 4);
        assert_eq!(splice(&reader, &file, 100, false).unwrap(), 3);
        assert_eq!(file.stream_position().unwrap(), 7);
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[test]
    fn an_empty_pipe_is_not_the_end_of_the_stream() {
        let (reader, writer) = pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(splice(&reader, &file, 1, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert_eq!(splice(&reader, &file, 1, false).unwrap(), 0);
    }

    #[test]
    fn a_pipe_receives_the_bytes_of_a_socket_and_reports_their_number() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        far.write_all(b"hello").unwrap();
        assert_eq!(readable(&near).unwrap(), 5);
        assert_eq!(splice(&near, &writer, 4096, false).unwrap(), 5);
        assert_eq!(readable(&reader).unwrap(), 5);
    }

    #[test]
    fn the_capacity_of_a_pipe_is_rounded_up_to_pages() {
        let (reader, _writer) = pipe().unwrap();
        assert_eq!(set_pipe_size(&reader, 100_000).unwrap(), 131_072);
        assert_eq!(pipe_size(&reader).unwrap(), 131_072);
    }
}
