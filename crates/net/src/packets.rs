//! One end of a socket pair for packets (`SOCK_SEQPACKET`) with descriptors attached, and the messages in them.
//!
//! Invariant: each read returns exactly one packet, truncated if it is longer than the buffer. Nothing is queued here:
//! a non-blocking send fails if the peer does not read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_sys::reactor::Registered;
use cloister_wire::frame::FrameError;
use cloister_wire::packet::{Bounded, decode, encode};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end, in the Tokio reactor.
#[derive(Debug)]
pub struct Packets(Registered);

/// Why a message was not received or sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The message is invalid, or too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Every copy of the other end is closed.
    #[error("the other end is closed")]
    Closed,
}

/// Both ends of a new pair: non-blocking, and not inherited by child processes.
///
/// # Errors
/// `EMFILE` and `ENFILE`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Reads and discards the packets queued at an end that no other process reads. This terminates because a socket holds
/// a bounded number of packets.
pub fn discard(end: impl AsFd) {
    let mut buffer = [0; 1];
    while recv_with_fds(&end, &mut buffer).is_ok_and(|(count, _)| count > 0) {}
}

/// Sends a message with a descriptor from an end that is in no reactor.
///
/// # Errors
/// `WouldBlock` if too many packets are unread.
pub fn pass<M: Serialize>(end: impl AsFd, message: &M, fd: BorrowedFd<'_>) -> Result<(), MessageError> {
    Ok(send_with_fds(end, &encode(message)?, &[fd]).map(drop)?)
}

impl Packets {
    /// Registers an end of a [`pair`].
    ///
    /// # Errors
    /// Those of the reactor.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(Registered::new(end)?))
    }

    /// The next packet and its descriptors. 0 bytes mean that the peer closed its end, or an empty packet, which no
    /// Cloister program sends.
    ///
    /// # Errors
    /// `InvalidData` if descriptors were lost because this process has too many open.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.0.readable().await?;
            match recv_with_fds(&*self.0, &mut *buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }

    /// The next message and the descriptors that came with it. `buffer` has space for the longest packet
    /// ([`cloister_wire::packet::LIMIT`]).
    ///
    /// # Errors
    /// If the message is invalid, or the other end is closed.
    pub async fn next<M>(&self, buffer: &mut [u8]) -> Result<(M, Vec<OwnedFd>), MessageError>
    where
        M: DeserializeOwned + Bounded,
    {
        let (count, fds) = self.recv(buffer).await?;
        match buffer.get(..count) {
            None | Some([]) => Err(MessageError::Closed),
            Some(packet) => Ok((decode(packet)?, fds)),
        }
    }

    /// Sends a message as soon as it fits in the peer's queue.
    ///
    /// # Errors
    /// If it is too long, or the other end is closed.
    pub async fn report<M: Serialize + Sync>(&self, message: &M) -> Result<(), MessageError> {
        Ok(self.send(&encode(message)?).await?)
    }

    /// The next packet, if one is queued.
    ///
    /// # Errors
    /// `WouldBlock` if none is, and those of [`Self::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        recv_with_fds(&*self.0, buffer)
    }

    /// Sends a packet with these descriptors.
    ///
    /// # Errors
    /// `WouldBlock` if too many packets are unread.
    pub fn try_send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_with_fds(&*self.0, packet, fds).map(drop)
    }

    /// Sends a packet as soon as it fits in the peer's queue.
    ///
    /// # Errors
    /// `EPIPE` if the peer's end is closed.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send_with(packet, &[]).await
    }

    /// Sends a packet with these descriptors as soon as it fits in the peer's queue.
    ///
    /// # Errors
    /// `EPIPE` if the peer's end is closed.
    pub async fn send_with(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            match self.try_send(packet, fds) {
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
    async fn packets_keep_their_boundaries_and_wait_for_a_reader() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Packets::new(ours).unwrap(), Packets::new(theirs).unwrap());
        let (attached, _other) = pair().unwrap();
        ours.try_send(b"one", &[attached.as_fd()]).unwrap();
        ours.send(b"two").await.unwrap();
        let mut buffer = [0; 8];
        let (count, fds) = theirs.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], fds.len()), (&b"one"[..], 1));
        let (count, fds) = theirs.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], fds.len()), (&b"two"[..], 0));
        assert_eq!(theirs.try_recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_send_to_a_peer_that_does_not_read_fails_and_unread_packets_can_be_discarded() {
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
