//! A listening socket in the Tokio reactor: vsock, TCP or Unix.
//!
//! Its law: what it accepts is a [`Stream`], non-blocking and not inherited by children. It leaves deciding whom to admit,
//! and what to do when accepting fails, to [`crate::Gate`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use cloister_sys::reactor::Registered;
use cloister_sys::vsock;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::stream::Stream;

/// Connections that may wait to be accepted. As many as a burst brings while one turn of the reactor lasts; Linux cuts
/// it to `net.core.somaxconn`, 4096.
const BACKLOG: u16 = 1024;

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A machine and a port on it.
    Vsock(vsock::Address),
    /// Somebody on this machine.
    Local,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    io: Registered,
    kind: Kind,
    /// Whether others accept from it too: then one that is woken may find nothing.
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

    /// Takes a TCP listener.
    pub fn from_tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::over(listener.into(), Kind::Tcp)
    }

    /// Takes a Unix listener.
    pub fn from_unix(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::over(listener.into(), Kind::Unix)
    }

    /// A socket that listens on a vsock port as [`Self::vsock`] does, to be handed to another program.
    ///
    /// Errors: as [`vsock::listen`].
    pub fn bind_vsock(port: u32) -> io::Result<OwnedFd> {
        vsock::listen(port, u32::from(BACKLOG))
    }

    /// Takes a listening socket that was made by another program. `shared`: further threads accept from it, each by a descriptor of
    /// its own, so that one that is woken may find nothing.
    ///
    /// Errors: `InvalidInput` where it is no vsock, TCP or Unix socket.
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

    /// The address a TCP listener has. Other kinds have none.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&*self.io).ok()?).ok()
    }

    /// Waits for a connection.
    ///
    /// Whether another waits behind it is asked by `poll(2)`: an accept that finds none has made a socket and a file for it
    /// by then, and takes them down again (`do_accept` of Linux).
    ///
    /// Errors: those of `accept4(2)`. Only [`crate::Gate::next`] should have to think about them.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let mut ready = self.io.readable().await?;
            if self.shared && !self.another_waits() {
                ready.clear_ready();
                continue;
            }
            match self.try_accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(connection) => {
                    if !self.another_waits() {
                        ready.clear_ready();
                    }
                    return Ok(connection);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a connection waits. Where that cannot be told, the next accept finds out.
    fn another_waits(&self) -> bool {
        let mut asked = [PollFd::new(&*self.io, PollFlags::IN)];
        rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
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
