//! Connections to a local port only if a process of a given cgroup, that of a service, listens on it.
//!
//! Invariant: a port number alone does not identify a service. All services share one loopback interface, and while one
//! restarts another can listen on its port. So after connecting and before sending any byte, the kernel is asked which
//! cgroup owns the socket that receives the connection ([`crate::diag`]).
//!
//! An accepted connection is looked up itself. One whose client sends first is not accepted before that, so its
//! listener is looked up instead, and once per [`CACHE_TIME`] whether other sockets share its address. If nothing is
//! cached, the listener is also looked up before connecting, so that no other program sees a connection.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::diag::{Diag, Socket};
use crate::stream::Stream;

/// Addresses on which a service can listen, in the order tried: most listen on IPv4 or on both.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How long the result is cached that no other socket shares the listener's address (`SO_REUSEPORT`): one lookup per
/// second has no measurable cost for a busy ingress, for any number of listeners.
const CACHE_TIME: Duration = Duration::from_secs(1);

thread_local! {
    /// This thread's socket to the kernel's diagnosis, opened on first use.
    static DIAG: RefCell<Option<Diag>> = const { RefCell::new(None) };
}

/// A port on the loopback interface.
#[derive(Debug)]
pub struct OwnedPort {
    number: u16,
    /// The last lookup of the owner's listener.
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    address: SocketAddr,
    owner: u64,
    valid_until: Instant,
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
        if let Some(known) = self.known().filter(|known| known.owner == owner) {
            // After an error, the service may be listening on the other address by now.
            if let Ok(stream) = dial(known.address).await
                && self.is_owned(&stream, known)?
            {
                return Ok(stream);
            }
        }
        let (mut last, mut taken) = (None, None);
        for address in LOOPBACKS.map(|ip| SocketAddr::new(ip, self.number)) {
            match look_up(address, owner)? {
                Occupancy::Free => {}
                Occupancy::Taken(by) => taken = taken.or(Some(NotReached::Taken(address, by))),
                Occupancy::Owned => match dial(address).await {
                    Ok(stream) => {
                        let known = Known { address, owner, valid_until: Instant::now() + CACHE_TIME };
                        if self.is_owned(&stream, known)? {
                            self.set_known(Some(known));
                            return Ok(stream);
                        }
                        last = Some(ErrorKind::ConnectionAborted.into());
                    }
                    // The listener was closed in the meantime.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => last = Some(error),
                },
            }
        }
        self.set_known(None);
        Err(last.map(NotReached::System).or(taken).unwrap_or(NotReached::Nothing))
    }

    /// Whether the connection belongs, or will belong, to a socket of the owner.
    fn is_owned(&self, stream: &Stream, known: Known) -> io::Result<bool> {
        let owns = |socket: &Socket| socket.cgroup == Some(known.owner);
        if !stream.speaks_first()
            && let Some(socket) = with_diag(|diag| diag.reached(known.address, stream.address()?))?
            && socket.cgroup.is_some()
        {
            return Ok(owns(&socket));
        }
        // Not accepted yet, or closed already.
        let Some(listener) = with_diag(|diag| diag.listener(known.address))? else { return Ok(false) };
        if !owns(&listener) {
            return Ok(false);
        }
        if Instant::now() < known.valid_until {
            return Ok(true);
        }
        let all = Diag::all_sharing(&listener, owns)?;
        self.set_known(all.then(|| Known { valid_until: Instant::now() + CACHE_TIME, ..known }));
        Ok(all)
    }

    fn known(&self) -> Option<Known> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_known(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Who listens on an address.
enum Occupancy {
    Free,
    Owned,
    Taken(Option<u64>),
}

fn look_up(address: SocketAddr, owner: u64) -> io::Result<Occupancy> {
    let Some(listener) = with_diag(|diag| diag.listener(address))? else { return Ok(Occupancy::Free) };
    let owns = |socket: &Socket| socket.cgroup == Some(owner);
    if owns(&listener) && Diag::all_sharing(&listener, owns)? {
        return Ok(Occupancy::Owned);
    }
    Ok(Occupancy::Taken(listener.cgroup.filter(|_| !owns(&listener))))
}

/// Runs a query on this thread's socket. A socket that failed is not used again.
fn with_diag<A>(query: impl FnOnce(&Diag) -> io::Result<A>) -> io::Result<A> {
    DIAG.with_borrow_mut(|cached| {
        let diag = match cached.take() {
            Some(diag) => diag,
            None => Diag::open()?,
        };
        let reply = query(&diag)?;
        *cached = Some(diag);
        Ok(reply)
    })
}

/// Opens this thread's socket to the kernel's diagnosis now, so that the first lookup needs no new descriptor, and a
/// kernel without diagnosis is detected at startup.
///
/// # Errors
/// As [`Diag::open`].
pub fn prepare_diagnosis() -> io::Result<()> {
    with_diag(|_| Ok(()))
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
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn dial(address: SocketAddr) -> io::Result<Stream> {
        Stream::connect_tcp(address).await
    }

    async fn dial_speaking_first(address: SocketAddr) -> io::Result<Stream> {
        Stream::connect_tcp_speaking_first(address).await
    }

    #[tokio::test]
    async fn the_owners_port_is_reached_repeatedly_on_either_loopback_address() {
        let ours = own_cgroup().unwrap();
        for place in ["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(place).await.unwrap();
            let port = OwnedPort::new(listener.local_addr().unwrap().port());
            for _ in 0..2 {
                port.connect(ours, dial).await.unwrap();
                let stream = port.connect(ours, dial_speaking_first).await.unwrap();
                stream.send_all(b"hi").await.unwrap();
                let accepted = [listener.accept().await.unwrap(), listener.accept().await.unwrap()];
                let [_, (mut accepted, _)] = accepted;
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
        let refused = port.connect(ours + 1, dial).await.unwrap_err();
        assert!(matches!(refused, NotReached::Taken(address, Some(by)) if address == at && by == ours));
        let text = refused.into_error("web", at.port()).to_string();
        assert_eq!(text, format!("the listener on {at} does not belong to web"));
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err());
        drop(listener);
        assert!(matches!(port.connect(ours, dial).await, Err(NotReached::Nothing)));
    }

    #[tokio::test]
    async fn a_port_that_changed_its_owner_since_the_last_lookup_is_refused() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = OwnedPort::new(listener.local_addr().unwrap().port());
        port.connect(ours, dial).await.unwrap();
        // As if the owner had been another cgroup at the last lookup.
        port.set_known(port.known().map(|known| Known { owner: ours + 1, ..known }));
        for speaks_first in [false, true] {
            let refused = if speaks_first {
                port.connect(ours + 1, dial_speaking_first).await
            } else {
                port.connect(ours + 1, dial).await
            };
            assert!(matches!(refused, Err(NotReached::Taken(..))));
        }
    }
}
