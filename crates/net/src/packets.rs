//! One end of a pair of sockets that carry whole packets (`SOCK_SEQPACKET`), and descriptors beside them.
//!
//! Its law: a packet arrives whole or, where it is longer than the buffer, cut; never two in one. Nothing is queued here: a
//! sender that must not wait is told that the peer does not read. What is in a packet is for its callers to judge.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_sys::reactor::Registered;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// One end, in the Tokio reactor.
#[derive(Debug)]
pub struct Packets(Registered);

/// Both ends of a new pair. They are not inherited by children, and no call on them waits.
///
/// # Errors
/// `EMFILE` and `ENFILE`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Takes and throws away what waits at an end that no process reads any more. It ends: a socket holds a bounded number of
/// packets.
pub fn discard(end: impl AsFd) {
    let mut buffer = [0; 1];
    while recv_with_fds(&end, &mut buffer).is_ok_and(|(count, _)| count > 0) {}
}

impl Packets {
    /// Takes an end of a [`pair`].
    ///
    /// # Errors
    /// Those of the reactor.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(Registered::new(end)?))
    }

    /// The next packet and what came with it. No bytes are the peer's end, or an empty packet, which no peer of ours sends.
    ///
    /// # Errors
    /// `InvalidData` when descriptors were lost for want of room in this process.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.0.readable().await?;
            match recv_with_fds(&*self.0, &mut *buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }

    /// The next packet, if one waits.
    ///
    /// # Errors
    /// `WouldBlock` where none does, and those of [`Self::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        recv_with_fds(&*self.0, buffer)
    }

    /// Sends a packet with these descriptors.
    ///
    /// # Errors
    /// `WouldBlock` where the peer has left too many unread.
    pub fn try_send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_with_fds(&*self.0, packet, fds).map(drop)
    }

    /// Sends a packet as soon as there is room for it.
    ///
    /// # Errors
    /// `EPIPE` when the peer's end is closed.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            match self.try_send(packet, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packets_keep_their_bounds_and_wait_for_a_reader() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Packets::new(ours).unwrap(), Packets::new(theirs).unwrap());
        let (carried, _other) = pair().unwrap();
        ours.try_send(b"one", &[carried.as_fd()]).unwrap();
        ours.send(b"two").await.unwrap();
        let mut buffer = [0; 8];
        let (count, fds) = theirs.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], fds.len()), (&b"one"[..], 1));
        let (count, fds) = theirs.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], fds.len()), (&b"two"[..], 0));
        assert_eq!(theirs.try_recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_not_waited_for_and_what_it_left_can_be_thrown_away() {
        let (ours, theirs) = pair().unwrap();
        let ours = Packets::new(ours).unwrap();
        let mut sent = 0;
        let error = loop {
            match ours.try_send(&[7; 4096], &[]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!((1..1000).contains(&sent), "{sent}");
        discard(&theirs);
        ours.send(b"again").await.unwrap();
    }
}
