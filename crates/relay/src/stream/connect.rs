//! Connecting: by TCP, by vsock, and to a Unix socket that leads over one.
//!
//! Its law: what is given back is connected, and to somebody else. How long that may take is the caller's business.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use cloister_sys::{tcp, vsock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Stream;

impl Stream {
    /// Connects by TCP, without Nagle's delay. How long it may take is the caller's business.
    ///
    /// Errors: `ConnectionRefused`, `EMFILE` and what else `connect(2)` tells.
    pub async fn connect_tcp(to: SocketAddr) -> io::Result<Self> {
        Self::connect_tcp_with(tcp_socket(to)?, to).await
    }

    /// Connects by TCP as [`Self::connect_tcp`] does, for a caller that has something to say at once: the other side is
    /// told of the connection and of the first bytes together, or of the connection alone after 200 ms.
    ///
    /// Errors: as [`Self::connect_tcp`].
    pub async fn connect_tcp_to_speak(to: SocketAddr) -> io::Result<Self> {
        let socket = tcp_socket(to)?;
        tcp::speaks_first(&socket)?;
        Self::connect_tcp_with(socket, to).await
    }

    async fn connect_tcp_with(socket: OwnedFd, to: SocketAddr) -> io::Result<Self> {
        let mut tried = rustix::net::connect(&socket, &to);
        if tried == Err(Errno::INPROGRESS) {
            // On this machine the answer has come by now, and asking again is how to hear it.
            tried = rustix::net::connect(&socket, &to);
        }
        let stream = match tried {
            Ok(()) | Err(Errno::ISCONN) => Self::local(socket)?,
            Err(Errno::INPROGRESS | Errno::ALREADY) => Self::local(socket)?.decided().await?,
            Err(error) => return Err(error.into()),
        };
        stream.refuse_itself(to)?;
        Ok(stream)
    }

    /// A socket that finds nobody listening on a port which it was given for its own connects to itself (the simultaneous
    /// open of RFC 9293, 3.5). That is nobody listening; and the port is left as if nothing had been, for who will.
    fn refuse_itself(&self, to: SocketAddr) -> io::Result<()> {
        if SocketAddr::try_from(rustix::net::getsockname(&*self.io)?) != Ok(to) {
            return Ok(());
        }
        self.reset_on_close()?;
        Err(Errno::CONNREFUSED.into())
    }

    /// Connects to a Unix socket of this machine that leads over a vsock. `WouldBlock` says that its listen queue is full.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let socket = new_socket(AddressFamily::UNIX)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::over_device(socket)
    }

    /// Connects by `AF_VSOCK`.
    ///
    /// Errors: as [`vsock::start_connect`] and [`vsock::finish_connect`].
    pub async fn connect_vsock(to: vsock::Address) -> io::Result<Self> {
        Self::vsock(vsock::start_connect(to)?)?.decided().await
    }

    /// Waits until a started connection is decided.
    async fn decided(self) -> io::Result<Self> {
        let _ready = self.room()?.writable().await?;
        sockopt::socket_error(&*self.io)??;
        Ok(self)
    }
}

/// A TCP socket that can connect to this address, without Nagle's delay.
fn tcp_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_socket(if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 })?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}
