//! Descriptor passing over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! Invariant: a received descriptor is owned immediately and close-on-exec, and a descriptor that the kernel had to
//! drop is an error, never a silent gap in the order. Framing and waiting are up to the caller.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Maximum number of descriptors in one message (`SCM_MAX_FD`, `include/net/scm.h`). More must be split over several
/// sends of at least one byte each.
pub const MAX_FDS: usize = 253;

/// Space for the control data of a full message.
const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Sends bytes with `fds` attached to the first byte, and returns the number of bytes sent. If that is not all of them,
/// the descriptors have been sent with the first part: send the rest without them.
///
/// Errors: `WouldBlock` if nothing was sent; `InvalidInput` for no bytes or over [`MAX_FDS`] descriptors; `EPIPE`,
/// without a signal.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if bytes.is_empty() || fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = socket.as_fd();
    let parts = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL))?)
}

/// Receives bytes and the descriptors attached to them, in order. Returns 0 bytes if the peer closed its end.
///
/// Errors: `WouldBlock`; `InvalidData` if descriptors were lost because this process has too many open, in which case
/// the received ones are closed.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let socket = socket.as_fd();
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = message {
            fds.extend(arrived);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "received descriptors were lost: too many open files",
        ));
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_is_usable() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut kept, given) = UnixStream::pair().unwrap();
        assert_eq!(send_with_fds(&near, b"one", &[given.as_fd()]).unwrap(), 3);
        drop(given);
        let mut buffer = [0; 8];
        let (n, mut fds) = recv_with_fds(&far, &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"one"[..], 1));
        let mut arrived = UnixStream::from(fds.remove(0));
        arrived.write_all(b"hello").unwrap();
        drop(arrived);
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn the_descriptors_of_a_full_message_arrive_in_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..MAX_FDS).map(|_| tempfile::tempfile().unwrap()).collect();
        for (number, file) in files.iter().enumerate() {
            (&mut &*file).write_all(&[u8::try_from(number).unwrap()]).unwrap();
        }
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send_with_fds(&near, b"x", &fds).unwrap();
        let (_, arrived) = recv_with_fds(&far, &mut [0; 1]).unwrap();
        for (number, fd) in arrived.iter().enumerate() {
            let mut byte = [0];
            rustix::io::pread(fd, &mut byte, 0).unwrap();
            assert_eq!(usize::from(byte[0]), number);
        }
        assert_eq!(arrived.len(), MAX_FDS);
    }

    #[test]
    fn too_many_descriptors_and_an_empty_message_are_refused() {
        let (near, _far) = UnixStream::pair().unwrap();
        let many = vec![near.as_fd(); MAX_FDS + 1];
        assert_eq!(send_with_fds(&near, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send_with_fds(&near, b"", &many[..1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_closed_peer_is_reported_as_zero_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        assert_eq!(recv_with_fds(&far, &mut [0; 4]).unwrap().0, 0);
        assert_eq!(
            send_with_fds(&far, b"x", &[]).unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::PIPE.raw_os_error())
        );
    }
}
