//! Bytes moved by the kernel from one descriptor to another, by way of a pipe.
//!
//! Its law: nothing here blocks on a pipe it made, and nothing raises a signal. It leaves waiting for readiness to the
//! caller. rustix has a safe call for each of these; what is added is the choice of flags and the retry after a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

/// A new pipe as (read end, write end): neither end blocks, neither survives an exec.
///
/// Errors: `EMFILE` and `ENFILE` when descriptors run out.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// Asks for a pipe that holds `bytes` and returns what it holds now, which can be more: the kernel rounds up to a
/// power of two of pages.
///
/// Errors: `EPERM` over `/proc/sys/fs/pipe-max-size` (1 MiB by default) or over the user's share of pipe memory,
/// `EBUSY` when the pipe holds more than that already.
pub fn set_pipe_size(pipe: impl AsFd, bytes: usize) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_setpipe_size(pipe, bytes)?)
}

/// How many bytes a pipe holds, where each piece that goes in fills its pages.
pub fn pipe_size(pipe: impl AsFd) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_getpipe_size(pipe)?)
}

/// Bytes that can be read without waiting from a pipe or a TCP or Unix socket (`FIONREAD`).
///
/// Errors: `EOPNOTSUPP` or `ENOTTY` on vsock before Linux 6.17.
pub fn readable(fd: impl AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(fd)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Moves at most `max` bytes; one of the two must be a pipe. A file moves its own position. Returns 0 at the end of
/// `from`.
///
/// `more` tells a TCP socket that further bytes follow at once, so that it fills its segments (`SPLICE_F_MORE`).
///
/// Errors: `WouldBlock` when the pipe has nothing to give or no room, or a non-blocking socket has not; `EINVAL` when
/// neither is a pipe or the file was opened for appending. A descriptor in blocking mode that is not a pipe can block.
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
    fn an_empty_pipe_is_no_end() {
        let (reader, writer) = pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(splice(&reader, &file, 1, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert_eq!(splice(&reader, &file, 1, false).unwrap(), 0);
    }

    #[test]
    fn a_pipe_takes_what_a_socket_has_and_tells_how_much() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        far.write_all(b"hello").unwrap();
        assert_eq!(readable(&near).unwrap(), 5);
        assert_eq!(splice(&near, &writer, 4096, false).unwrap(), 5);
        assert_eq!(readable(&reader).unwrap(), 5);
    }

    #[test]
    fn a_pipe_grows_to_whole_pages() {
        let (reader, _writer) = pipe().unwrap();
        assert_eq!(set_pipe_size(&reader, 100_000).unwrap(), 131_072);
        assert_eq!(pipe_size(&reader).unwrap(), 131_072);
    }
}
