//! Connecting: by TCP, by vsock, and to a Unix socket that leads over one.
//!
//! Invariant: a returned stream is connected, and not to itself. Callers set time limits.

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

/// Local ports for connections when all ports that the kernel chooses from are in use: those above that range
/// (`net.ipv4.ip_local_port_range` ends at 60,999), where few programs listen.
const SHARED_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// Number of shared ports tried: each that fails already has a connection of this program to the same address.
const SHARED_TRIES: usize = 64;

impl Stream {
    /// Connects by TCP, with Nagle's algorithm disabled and without a time limit.
    ///
    /// A program that has bound every port cannot prevent a caller with `CAP_NET_ADMIN` from connecting: the port is
    /// then shared with it.
    ///
    /// Errors: `ConnectionRefused`, `EMFILE` and other errors of `connect(2)`.
    pub async fn connect_tcp(to: SocketAddr) -> io::Result<Self> {
        Self::connect_tcp_borrowing(to, || async { tcp_on_shared_port(to) }).await
    }

    /// Connects by TCP for a program without `CAP_NET_ADMIN`: if all ports are in use, `borrow` gets a socket from
    /// another program that has the capability ([`tcp_on_shared_port`]). It is called again if the shared port already
    /// has a connection to the same address.
    ///
    /// Errors: as [`Self::connect_tcp`].
    pub async fn connect_tcp_borrowing<B, F>(to: SocketAddr, borrow: B) -> io::Result<Self>
    where
        B: Fn() -> F,
        F: Future<Output = io::Result<OwnedFd>>,
    {
        let mut tried = Self::connect_tcp_with(tcp_socket(to)?, to).await;
        for _ in 0..SHARED_TRIES {
            if !tried.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
                break;
            }
            let Ok(socket) = borrow().await else { break };
            tried = Self::connect_tcp_with(socket, to).await;
        }
        tried
    }

    async fn connect_tcp_with(socket: OwnedFd, to: SocketAddr) -> io::Result<Self> {
        let mut tried = rustix::net::connect(&socket, &to);
        if tried == Err(Errno::INPROGRESS) {
            // On the loopback interface the reply has already arrived, and a second call returns the result.
            tried = rustix::net::connect(&socket, &to);
        }
        let stream = match tried {
            Ok(()) | Err(Errno::ISCONN) => Self::local(socket)?,
            Err(Errno::INPROGRESS | Errno::ALREADY) => Self::local(socket)?.finished().await?,
            Err(error) => return Err(error.into()),
        };
        stream.refuse_self_connection(to)?;
        Ok(stream)
    }

    /// If nothing listens on the port and the kernel assigned the same port to this socket, it connects to itself
    /// (simultaneous open, RFC 9293, 3.5). That is reported as a refused connection, and the reset frees the port
    /// immediately.
    fn refuse_self_connection(&self, to: SocketAddr) -> io::Result<()> {
        if self.address()? != to {
            return Ok(());
        }
        self.reset_on_close()?;
        Err(Errno::CONNREFUSED.into())
    }

    /// Connects to a Unix socket of this machine that leads over a vsock. `WouldBlock` means that its listen queue is
    /// full.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let socket = new_socket(AddressFamily::UNIX)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::over_device(socket)
    }

    /// Connects by `AF_VSOCK`.
    ///
    /// Errors: as [`vsock::start_connect`] and [`vsock::finish_connect`].
    pub async fn connect_vsock(to: vsock::Address) -> io::Result<Self> {
        Self::vsock(vsock::start_connect(to)?)?.finished().await
    }

    /// Waits until connecting has succeeded or failed.
    async fn finished(self) -> io::Result<Self> {
        let _ready = self.write_watch()?.writable().await?;
        sockopt::socket_error(&*self.io)??;
        Ok(self)
    }
}

/// A TCP socket that can connect to this address, with Nagle's algorithm disabled.
fn tcp_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_socket(if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 })?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// A TCP socket that can connect to this address, bound to one of the ports above those that the kernel chooses from,
/// even if that port is in use. It needs `CAP_NET_ADMIN`.
///
/// Errors: `PermissionDenied` without the capability; `EMFILE`.
pub fn tcp_on_shared_port(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(to)?;
    let mut port = next_shared_port();
    if port == to.port() {
        // It would connect to itself.
        port = next_shared_port();
    }
    bind_shared(&socket, SocketAddr::new(to.ip(), port))?;
    Ok(socket)
}

/// Binds a socket to a local address, even if the port is in use.
fn bind_shared(socket: &OwnedFd, from: SocketAddr) -> io::Result<()> {
    tcp::share_any_port(socket, true)?;
    rustix::net::bind(socket, &from)?;
    tcp::share_any_port(socket, false)?;
    // A service can still bind the port afterwards if it sets the same option, as after any connection of its own.
    sockopt::set_socket_reuseaddr(socket, true).map_err(io::Error::from)
}

/// The shared ports in turn, so that each is reused as late as possible.
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
    async fn a_port_of_another_program_is_shared_if_permitted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        // Another program has bound the port on every address, exclusively.
        let holder = new_socket(AddressFamily::INET).unwrap();
        rustix::net::bind(&holder, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let taken = SocketAddr::try_from(rustix::net::getsockname(&holder).unwrap()).unwrap();
        let from = SocketAddr::new(to.ip(), taken.port());
        let socket = tcp_socket(to).unwrap();
        assert_eq!(rustix::net::bind(&socket, &from), Err(Errno::ADDRINUSE));
        match bind_shared(&socket, from) {
            Ok(()) => {
                let stream = Stream::connect_tcp_with(socket, to).await.unwrap();
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
