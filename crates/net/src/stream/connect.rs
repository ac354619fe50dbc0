//! Connecting: by TCP, by vsock, and to a Unix socket that leads over one.
//!
//! Its law: what is given back is connected, and to somebody else. How long that may take is the caller's business.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use cloister_sys::{tcp, vsock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Stream;

/// Ports of our own connections where others have taken all that the kernel chooses from: those behind them
/// (`net.ipv4.ip_local_port_range` ends at 60,999), where few programs listen.
const SHARED_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// Ports tried before it is given up: each that fails has a connection of ours to the same place.
const SHARED_TRIES: usize = 64;

impl Stream {
    /// Connects by TCP, without Nagle's delay. How long it may take is the caller's business.
    ///
    /// A program that has bound every port keeps nobody with `CAP_NET_ADMIN` from connecting: the port is then shared with it.
    ///
    /// Errors: `ConnectionRefused`, `EMFILE` and what else `connect(2)` tells.
    pub async fn connect_tcp(to: SocketAddr) -> io::Result<Self> {
        Self::connect_tcp_as(to, false).await
    }

    /// Connects by TCP as [`Self::connect_tcp`] does, for a caller that has something to say at once: the other side is
    /// told of the connection and of the first bytes together, or of the connection alone after 200 ms.
    ///
    /// Errors: as [`Self::connect_tcp`].
    pub async fn connect_tcp_to_speak(to: SocketAddr) -> io::Result<Self> {
        Self::connect_tcp_as(to, true).await
    }

    async fn connect_tcp_as(to: SocketAddr, speaks: bool) -> io::Result<Self> {
        Self::connect_tcp_borrowing(to, speaks, || async { tcp_beside(to, speaks) }).await
    }

    /// Connects by TCP as the others do, for a program without `CAP_NET_ADMIN`: where all ports are taken, `borrow` gets a socket
    /// of another program's that has it ([`tcp_beside`]). It is asked again where the shared port leads to the same place already.
    ///
    /// Errors: as [`Self::connect_tcp`].
    pub async fn connect_tcp_borrowing<B, F>(to: SocketAddr, speaks: bool, borrow: B) -> io::Result<Self>
    where
        B: Fn() -> F,
        F: Future<Output = io::Result<OwnedFd>>,
    {
        let mut tried = Self::connect_tcp_with(tcp_socket(to, speaks)?, to, speaks).await;
        for _ in 0..SHARED_TRIES {
            if !tried.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
                break;
            }
            let Ok(socket) = borrow().await else { break };
            tried = Self::connect_tcp_with(socket, to, speaks).await;
        }
        tried
    }

    async fn connect_tcp_with(socket: OwnedFd, to: SocketAddr, speaks: bool) -> io::Result<Self> {
        let mut tried = rustix::net::connect(&socket, &to);
        if tried == Err(Errno::INPROGRESS) {
            // On this machine the answer has come by now, and asking again is how to hear it.
            tried = rustix::net::connect(&socket, &to);
        }
        let stream = match tried {
            Ok(()) | Err(Errno::ISCONN) => Self::dialled(socket, speaks)?,
            Err(Errno::INPROGRESS | Errno::ALREADY) => Self::dialled(socket, speaks)?.decided().await?,
            Err(error) => return Err(error.into()),
        };
        stream.refuse_itself(to)?;
        Ok(stream)
    }

    /// A socket that finds nobody listening on a port which it was given for its own connects to itself (the simultaneous
    /// open of RFC 9293, 3.5). That is nobody listening; and the port is left as if nothing had been, for who will.
    fn refuse_itself(&self, to: SocketAddr) -> io::Result<()> {
        if self.address()? != to {
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
fn tcp_socket(to: SocketAddr, speaks: bool) -> io::Result<OwnedFd> {
    let socket = new_socket(if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 })?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if speaks {
        tcp::speaks_first(&socket)?;
    }
    Ok(socket)
}

/// A TCP socket that can connect to this address, bound to one of the ports behind those that the kernel chooses from, whoever
/// else has that. It needs `CAP_NET_ADMIN`.
///
/// Errors: `PermissionDenied` without the capability; `EMFILE`.
pub fn tcp_beside(to: SocketAddr, speaks: bool) -> io::Result<OwnedFd> {
    let socket = tcp_socket(to, speaks)?;
    let mut port = next_shared_port();
    if port == to.port() {
        // It would meet itself.
        port = next_shared_port();
    }
    bind_beside(&socket, SocketAddr::new(to.ip(), port))?;
    Ok(socket)
}

/// Binds a socket to an address of this machine, whoever else has the port.
fn bind_beside(socket: &OwnedFd, from: SocketAddr) -> io::Result<()> {
    tcp::share_any_port(socket, true)?;
    rustix::net::bind(socket, &from)?;
    tcp::share_any_port(socket, false)?;
    // A service that has the port for its own finds it as after any connection of its own: free for who sets the same option.
    sockopt::set_socket_reuseaddr(socket, true).map_err(io::Error::from)
}

/// The shared ports in turn, so that one is used again as late as can be.
fn next_shared_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = SHARED_PORTS.end().saturating_sub(*SHARED_PORTS.start()).saturating_add(1);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or_default();
    SHARED_PORTS.start().saturating_add(turn)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test]
    async fn a_port_that_another_program_has_is_shared_with_it_where_that_is_allowed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        // Somebody has a port of ours, on every address, and shares it with nobody.
        let holder = new_socket(AddressFamily::INET).unwrap();
        rustix::net::bind(&holder, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let taken = SocketAddr::try_from(rustix::net::getsockname(&holder).unwrap()).unwrap();
        let from = SocketAddr::new(to.ip(), taken.port());
        let socket = tcp_socket(to, true).unwrap();
        assert_eq!(rustix::net::bind(&socket, &from), Err(Errno::ADDRINUSE));
        match bind_beside(&socket, from) {
            Ok(()) => {
                let stream = Stream::connect_tcp_with(socket, to, true).await.unwrap();
                stream.send_all(b"hello").await.unwrap();
                assert_eq!(listener.accept().await.unwrap().1, from);
                drop(holder);
                let service = TcpSocket::new_v4().unwrap();
                service.set_reuseaddr(true).unwrap();
                service.bind(from).unwrap();
                service.listen(1).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn shared_ports_are_used_in_turn() {
        let first: Vec<u16> = (0..10_000).map(|_| next_shared_port()).collect();
        assert!(first.iter().all(|port| SHARED_PORTS.contains(port)));
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
