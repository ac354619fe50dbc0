//! Connections to a local port only if a process of a given cgroup, that of a service, listens on it.
//!
//! Invariant: a port number alone does not identify a service. All services share one loopback interface, and while one
//! restarts another can listen on its port. So after connecting and before sending any byte, the kernel is asked which
//! cgroup owns the socket that receives the connection ([`crate::diag`]).
//!
//! A connection is looked up itself. If its listener waits for data first (`TCP_DEFER_ACCEPT`), or its queue filled up
//! during the handshake, the kernel has no socket for it yet, so its listener is looked up instead, together with every
//! socket that shares its address (`SO_REUSEPORT`). It was assigned to one of them when it was opened, and the kernel gives it to no other:
//! a listener that is closed takes its connections with it (`net.ipv4.tcp_migrate_req` is off). So if all that remain
//! belong to the service, so does the connection. While another program shares the address, connections are opened one
//! by one until the kernel assigns one to the service. If nothing is cached, the listener is also looked up before
//! connecting, so that no other program sees a connection.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::thread::LocalKey;

use crate::diag::{Diag, Sharing, Socket};
use crate::stream::Stream;

/// Addresses on which a service can listen, in the order tried: most listen on IPv4 or on both.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Connections that are opened to an address that the service shares with another program until one is assigned to the
/// service: with one listener each, all miss it once in 256 times.
const SHARED_ATTEMPTS: usize = 8;

thread_local! {
    /// This thread's sockets to the kernel's diagnosis, opened on first use: for one socket, and for lists of them.
    static ONE: RefCell<Option<Diag>> = const { RefCell::new(None) };
    static LISTS: RefCell<Option<Diag>> = const { RefCell::new(None) };
}

/// A port on the loopback interface.
#[derive(Debug)]
pub struct OwnedPort {
    number: u16,
    /// The address on which a service was last found, and the service.
    known: Mutex<Option<(SocketAddr, u64)>>,
}

/// Why connecting failed.
#[derive(Debug)]
pub enum NotReached {
    /// Nothing listens on the port.
    Nothing,
    /// Another program listens on this address; its cgroup, if known.
    Taken(SocketAddr, Option<u64>),
    /// A system error.
    System(io::Error),
}

impl NotReached {
    /// As an error whose text contains the addresses; `owner` is the service's name.
    #[must_use]
    pub fn into_error(self, owner: &str, port: u16) -> io::Error {
        let (kind, text) = match self {
            Self::System(error) => return error,
            Self::Nothing => {
                (ErrorKind::ConnectionRefused, format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}"))
            }
            Self::Taken(address, _) => {
                (ErrorKind::AddrInUse, format!("the listener on {address} does not belong to {owner}"))
            }
        };
        io::Error::new(kind, text)
    }
}

impl From<io::Error> for NotReached {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl OwnedPort {
    /// This port.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self { number, known: Mutex::new(None) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Connects by `dial` to the process of cgroup `owner` that listens on `127.0.0.1` or, failing that, on `::1`.
    ///
    /// # Errors
    /// Those of `dial`, if a process of the owner listens.
    pub async fn connect<D, F>(&self, owner: u64, dial: D) -> Result<Stream, NotReached>
    where
        D: Fn(SocketAddr) -> F,
        F: Future<Output = io::Result<Stream>>,
    {
        if let Some((address, _)) = self.known().filter(|(_, known)| *known == owner) {
            // After an error, the service may be listening on the other address by now.
            if let Ok(stream) = dial(address).await
                && is_owned(&stream, address, owner)?
            {
                return Ok(stream);
            }
        }
        let (mut last, mut taken) = (None, None);
        for address in LOOPBACKS.map(|ip| SocketAddr::new(ip, self.number)) {
            let dialled = match look_up(address, owner)? {
                Occupancy::Free => continue,
                Occupancy::Taken(by) => {
                    taken = taken.or(Some(NotReached::Taken(address, by)));
                    continue;
                }
                Occupancy::Owned => dial(address).await.and_then(|stream| {
                    let reached = is_owned(&stream, address, owner)?;
                    reached.then_some(stream).ok_or_else(|| ErrorKind::ConnectionAborted.into())
                }),
                Occupancy::Shared => dial_shared(address, owner, &dial).await,
            };
            match dialled {
                Ok(stream) => {
                    self.set_known(Some((address, owner)));
                    return Ok(stream);
                }
                // The listener was closed in the meantime.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => last = Some(error),
            }
        }
        self.set_known(None);
        Err(last.map(NotReached::System).or(taken).unwrap_or(NotReached::Nothing))
    }

    fn known(&self) -> Option<(SocketAddr, u64)> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_known(&self, known: Option<(SocketAddr, u64)>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Whether the connection to `address` belongs, or will belong, to a socket of the owner.
fn is_owned(stream: &Stream, address: SocketAddr, owner: u64) -> io::Result<bool> {
    match is_assigned(stream, address, owner)? {
        Some(is_owned) => Ok(is_owned),
        None => Ok(matches!(look_up(address, owner)?, Occupancy::Owned)),
    }
}

/// Whether the connection has a socket of the owner at its other end; `None` if it has none yet, or no longer.
fn is_assigned(stream: &Stream, address: SocketAddr, owner: u64) -> io::Result<Option<bool>> {
    let socket = with_diag(&ONE, |diag| diag.reached(address, stream.address()?))?;
    Ok(socket.and_then(|socket| socket.cgroup).map(|cgroup| cgroup == owner))
}

/// Opens connections to an address that several programs share until one belongs to the owner.
async fn dial_shared<F>(address: SocketAddr, owner: u64, dial: impl Fn(SocketAddr) -> F) -> io::Result<Stream>
where
    F: Future<Output = io::Result<Stream>>,
{
    for _ in 0..SHARED_ATTEMPTS {
        let stream = dial(address).await?;
        if is_assigned(&stream, address, owner)? == Some(true) {
            return Ok(stream);
        }
    }
    let text = format!(
        "another program shares {address}, and {SHARED_ATTEMPTS} connections in a row were not accepted by the service"
    );
    Err(io::Error::new(ErrorKind::AddrInUse, text))
}

/// Who listens on an address.
#[derive(Debug)]
enum Occupancy {
    Free,
    Owned,
    /// The owner and other programs.
    Shared,
    Taken(Option<u64>),
}

fn look_up(address: SocketAddr, owner: u64) -> io::Result<Occupancy> {
    let Some(listener) = with_diag(&ONE, |diag| diag.listener(address))? else { return Ok(Occupancy::Free) };
    let owns = |socket: &Socket| socket.cgroup == Some(owner);
    Ok(match with_diag(&LISTS, |diag| diag.sharing(&listener, owns))? {
        Sharing::All => Occupancy::Owned,
        Sharing::Some => Occupancy::Shared,
        Sharing::None => Occupancy::Taken(listener.cgroup.filter(|_| !owns(&listener))),
    })
}

/// Runs a query on a socket of this thread. A socket that failed, or whose reply was not read to its end, is not used
/// again.
fn with_diag<A>(
    cached: &'static LocalKey<RefCell<Option<Diag>>>,
    query: impl FnOnce(&Diag) -> io::Result<A>,
) -> io::Result<A> {
    let diag = match cached.take() {
        Some(diag) => diag,
        None => Diag::open()?,
    };
    let reply = query(&diag)?;
    cached.set(Some(diag));
    Ok(reply)
}

/// Opens this thread's sockets to the kernel's diagnosis now, so that the first lookup needs no new descriptor, and a
/// kernel without diagnosis is detected at startup.
///
/// # Errors
/// As [`Diag::open`].
pub fn prepare_diagnosis() -> io::Result<()> {
    with_diag(&ONE, |_| Ok(()))?;
    with_diag(&LISTS, |_| Ok(()))
}

/// The cgroup that sockets of this process belong to; for tests, which act as services.
///
/// # Errors
/// Those of creating a listener and looking it up.
pub fn own_cgroup() -> io::Result<u64> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let found = Diag::open()?.listener(listener.local_addr()?)?;
    found.and_then(|socket| socket.cgroup).ok_or_else(|| ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_owners_port_is_reached_repeatedly_on_either_loopback_address() {
        let ours = own_cgroup().unwrap();
        for place in ["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(place).await.unwrap();
            let port = OwnedPort::new(listener.local_addr().unwrap().port());
            for _ in 0..2 {
                let stream = port.connect(ours, Stream::connect_tcp).await.unwrap();
                let (mut accepted, _) = listener.accept().await.unwrap();
                stream.send_all(b"hi").await.unwrap();
                assert_eq!(accepted.read_u8().await.unwrap(), b'h', "{place}");
            }
        }
    }

    #[tokio::test]
    async fn a_listener_of_another_cgroup_sees_no_connection() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let port = OwnedPort::new(at.port());
        let refused = port.connect(ours + 1, Stream::connect_tcp).await.unwrap_err();
        assert!(matches!(refused, NotReached::Taken(address, Some(by)) if address == at && by == ours));
        let text = refused.into_error("web", at.port()).to_string();
        assert_eq!(text, format!("the listener on {at} does not belong to web"));
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err());
        drop(listener);
        assert!(matches!(port.connect(ours, Stream::connect_tcp).await, Err(NotReached::Nothing)));
    }

    #[tokio::test]
    async fn a_port_that_changed_its_owner_since_the_last_lookup_is_refused() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = OwnedPort::new(listener.local_addr().unwrap().port());
        port.connect(ours, Stream::connect_tcp).await.unwrap();
        // As if the owner had been another cgroup at the last lookup.
        port.set_known(port.known().map(|(address, _)| (address, ours + 1)));
        let refused = port.connect(ours + 1, Stream::connect_tcp).await;
        assert!(matches!(refused, Err(NotReached::Taken(..))));
    }

    #[tokio::test]
    async fn a_service_that_waits_for_data_is_recognised_by_its_listener() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        cloister_sys::tcp::defer_accept(&listener).unwrap();
        let at = listener.local_addr().unwrap();
        let port = OwnedPort::new(at.port());
        for _ in 0..2 {
            let stream = port.connect(ours, Stream::connect_tcp).await.unwrap();
            assert_eq!(is_assigned(&stream, at, ours).unwrap(), None);
            stream.send_all(b"hi").await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1, stream.address().unwrap());
        }
        port.set_known(Some((at, ours + 1)));
        assert!(matches!(port.connect(ours + 1, Stream::connect_tcp).await, Err(NotReached::Taken(..))));
    }
}
