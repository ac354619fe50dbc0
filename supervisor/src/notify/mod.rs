//! Notifications from services: the datagrams of `sd_notify(3)`.
//!
//! Invariant: the kernel identifies the sender, not the message. A datagram counts for the service in whose cgroup its
//! sender is; one from any other sender, or from one that has already exited, is ignored.

mod message;

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

pub use message::{Note, read};

/// Maximum length of a datagram, in bytes: longer ones are truncated, as their status texts would be anyway.
const MAX_BYTES: usize = 4096;

/// The socket that services send notifications to.
#[derive(Debug)]
pub struct Notify(UnixDatagram);

impl Notify {
    /// A socket that listens on `address`, for [`Self::serving`].
    ///
    /// # Errors
    /// If the address is in use.
    pub fn bind(address: &SocketAddr) -> io::Result<OwnedFd> {
        let socket = StdDatagram::bind_addr(address)?;
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(socket.into())
    }

    /// Reads from a socket that was bound by this supervisor or an earlier one.
    ///
    /// # Errors
    /// If the socket cannot be registered with the reactor.
    pub fn serving(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixDatagram::from_std(socket.into())?))
    }

    /// The next datagram and the process that sent it. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// Those of the socket, none of which a sender can cause.
    pub async fn receive(&self) -> io::Result<(u32, Vec<u8>)> {
        loop {
            self.0.readable().await?;
            match self.0.try_io(Interest::READABLE, || receive(&self.0)) {
                Ok((Some(pid), bytes)) => return Ok((pid, bytes)),
                Ok((None, _)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(Option<u32>, Vec<u8>)> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    bytes.truncate(received.bytes);
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(who) => u32::try_from(who.pid.as_raw_nonzero().get()).ok(),
        _ => None,
    });
    Ok((sender, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;

    #[tokio::test]
    async fn the_kernel_identifies_the_sender_of_a_datagram() {
        let to = SocketAddr::from_abstract_name(format!("cloister-test-{}", std::process::id())).unwrap();
        let notify = Notify::serving(Notify::bind(&to).unwrap()).unwrap();
        let sender = StdDatagram::unbound().unwrap();
        sender.send_to_addr(b"READY=1", &to).unwrap();
        assert_eq!(notify.receive().await.unwrap(), (std::process::id(), b"READY=1".to_vec()));
    }

    /// `sd_notify_barrier(3)`, with which `systemd-notify` waits before it exits.
    #[tokio::test]
    async fn a_descriptor_sent_with_a_notification_is_closed_once_it_is_read() {
        let to = SocketAddr::from_abstract_name(format!("cloister-barrier-{}", std::process::id())).unwrap();
        let notify = Notify::serving(Notify::bind(&to).unwrap()).unwrap();
        let sender = StdDatagram::unbound().unwrap();
        sender.connect_addr(&to).unwrap();
        let (mut read, write) = io::pipe().unwrap();
        cloister_sys::fdpass::send_with_fds(&sender, b"BARRIER=1", &[write.as_fd()]).unwrap();
        drop(write);
        assert_eq!(notify.receive().await.unwrap(), (std::process::id(), b"BARRIER=1".to_vec()));
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
    }
}
