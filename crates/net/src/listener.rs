//! A listening socket in the Tokio reactor: vsock, TCP or Unix.
//!
//! Invariant: accepted sockets are non-blocking [`Stream`]s that child processes do not inherit. Admission and accept
//! errors are handled by [`crate::Gate`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use cloister_sys::reactor::Registered;
use cloister_sys::vsock;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::stream::Stream;

/// Length of the listen queue: the connections of a burst during one turn of the reactor. Linux limits it to
/// `net.core.somaxconn`, 4096.
const BACKLOG: u16 = 1024;

/// The address of the peer of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A vsock address: a machine and a port on it.
    Vsock(vsock::Address),
    /// A process on this machine.
    Local,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    io: Registered,
    kind: Kind,
    /// Whether others accept from it too, so that no connection may be left after a wakeup.
    shared: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Vsock,
    Tcp,
    Unix,
}

impl Listener {
    /// Listens on a vsock port for peers of any CID.
    ///
    /// Errors: as [`vsock::listen`].
    pub fn vsock(port: u32) -> io::Result<Self> {
        Self::over(Self::bind_vsock(port)?, Kind::Vsock)
    }

    /// Listens on a TCP address; port 0 lets the system choose.
    ///
    /// Errors: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` for a port below 1024.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, i32::from(BACKLOG.cast_signed()))?;
        Self::over(socket, Kind::Tcp)
    }

    /// Registers a TCP listener.
    pub fn from_tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::over(listener.into(), Kind::Tcp)
    }

    /// Registers a Unix listener.
    pub fn from_unix(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::over(listener.into(), Kind::Unix)
    }

    /// A socket that listens on a vsock port as [`Self::vsock`] does, to be passed to another program.
    ///
    /// Errors: as [`vsock::listen`].
    pub fn bind_vsock(port: u32) -> io::Result<OwnedFd> {
        vsock::listen(port, u32::from(BACKLOG))
    }

    /// Registers a listening socket that was created by another program. `shared`: other threads accept from it too,
    /// each with its own descriptor, so that no connection may be left after a wakeup.
    ///
    /// Errors: `InvalidInput` if it is not a vsock, TCP or Unix socket.
    pub fn inherited(socket: OwnedFd, shared: bool) -> io::Result<Self> {
        let kind = match sockopt::socket_domain(&socket)? {
            AddressFamily::VSOCK => Kind::Vsock,
            AddressFamily::INET | AddressFamily::INET6 => Kind::Tcp,
            AddressFamily::UNIX => Kind::Unix,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { shared, ..Self::over(socket, kind)? })
    }

    /// The address of a TCP listener; `None` for other kinds.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&*self.io).ok()?).ok()
    }

    /// Waits for a connection.
    ///
    /// `poll(2)` checks whether another one is pending: an accept without a pending connection creates a socket and a
    /// file first, and destroys them again (`do_accept` in Linux).
    ///
    /// Errors: those of `accept4(2)`, which [`crate::Gate::next`] handles.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let mut ready = self.io.readable().await?;
            if self.shared && !self.is_pending() {
                ready.clear_ready();
                continue;
            }
            match self.try_accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(connection) => {
                    if !self.is_pending() {
                        ready.clear_ready();
                    }
                    return Ok(connection);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a connection is pending. If that is unknown it returns true, and the next accept finds out.
    fn is_pending(&self) -> bool {
        let mut polled = [PollFd::new(&*self.io, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    fn over(socket: OwnedFd, kind: Kind) -> io::Result<Self> {
        Ok(Self { io: Registered::new(socket)?, kind, shared: false })
    }

    fn try_accept(&self) -> io::Result<(Stream, Peer)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match self.kind {
            Kind::Vsock => {
                let (socket, peer) = vsock::accept(&*self.io)?;
                Ok((Stream::vsock(socket)?, Peer::Vsock(peer)))
            }
            Kind::Tcp => {
                let (socket, peer) = rustix::net::acceptfrom_with(&*self.io, flags)?;
                sockopt::set_tcp_nodelay(&socket, true)?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok((Stream::local(socket)?, peer.map_or(Peer::Local, Peer::Tcp)))
            }
            Kind::Unix => {
                let socket = rustix::net::accept_with(&*self.io, flags)?;
                Ok((Stream::over_device(socket)?, Peer::Local))
            }
        }
    }
}
