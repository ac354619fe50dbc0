//! Connections to a port of this machine that one cgroup's program has: a service's.
//!
//! Its law: a port number is nobody's. All services share one loopback interface, and while one restarts another can listen
//! where it did. So the kernel is asked whose socket takes the connection, after it was made and before a byte is sent
//! ([`crate::diag`]).
//!
//! A connection that is accepted is looked up itself. One whose client is to speak first is not accepted before that: the
//! listener is looked up, and whether others share its place is looked at once in a [`FRESH`]. Where nothing is known yet, the
//! listener is looked up before the connection as well, so that another program's sees none.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::diag::{Diag, Socket};
use crate::stream::Stream;

/// Where a service can listen, in the order tried: most listen on IPv4 or on both.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How long it is believed that no other socket shares the listener's place (`SO_REUSEPORT`): a look a second costs a busy
/// ingress nothing that could be measured, however many listeners there are.
const FRESH: Duration = Duration::from_secs(1);

thread_local! {
    /// This thread's way to the kernel's diagnosis, once it has needed one.
    static DIAG: RefCell<Option<Diag>> = const { RefCell::new(None) };
}

/// A port on the loopback interface.
#[derive(Debug)]
pub struct OwnedPort {
    number: u16,
    /// Where its owner listens, as it was found last.
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    address: SocketAddr,
    owner: u64,
    fresh_until: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NotReached {
    /// Nothing listens.
    Nothing,
    /// Another program listens: on this address, in this cgroup.
    Taken(SocketAddr, Option<u64>),
    /// The system refuses.
    System(io::Error),
}

impl NotReached {
    /// As an error whose text says on which addresses; `owner` is the service's name.
    #[must_use]
    pub fn into_error(self, owner: &str, port: u16) -> io::Error {
        let (kind, text) = match self {
            Self::System(error) => return error,
            Self::Nothing => {
                (ErrorKind::ConnectionRefused, format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}"))
            }
            Self::Taken(address, _) => {
                (ErrorKind::AddrInUse, format!("what listens on {address} is no process of {owner}"))
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

    /// Connects by `dial` to the program of cgroup `owner`, on `127.0.0.1` or else on `::1`.
    ///
    /// # Errors
    /// Those of `dial`, where something of the owner's listens.
    pub async fn connect<D, F>(&self, owner: u64, dial: D) -> Result<Stream, NotReached>
    where
        D: Fn(SocketAddr) -> F,
        F: Future<Output = io::Result<Stream>>,
    {
        if let Some(known) = self.known().filter(|known| known.owner == owner) {
            // An error may be that of a service that listens elsewhere by now.
            if let Ok(stream) = dial(known.address).await
                && self.took(&stream, known)?
            {
                return Ok(stream);
            }
        }
        let (mut last, mut taken) = (None, None);
        for address in LOOPBACKS.map(|ip| SocketAddr::new(ip, self.number)) {
            match look(address, owner)? {
                Place::Empty => {}
                Place::Taken(by) => taken = taken.or(Some(NotReached::Taken(address, by))),
                Place::Owned => match dial(address).await {
                    Ok(stream) => {
                        let known = Known { address, owner, fresh_until: Instant::now() + FRESH };
                        if self.took(&stream, known)? {
                            self.learn(Some(known));
                            return Ok(stream);
                        }
                        last = Some(ErrorKind::ConnectionAborted.into());
                    }
                    // It has been closed meanwhile.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => last = Some(error),
                },
            }
        }
        self.learn(None);
        Err(last.map(NotReached::System).or(taken).unwrap_or(NotReached::Nothing))
    }

    /// Whether the owner's socket has the connection, or will have it.
    fn took(&self, stream: &Stream, known: Known) -> io::Result<bool> {
        let owns = |socket: &Socket| socket.cgroup == Some(known.owner);
        if !stream.speaks_first()
            && let Some(socket) = asked(|diag| diag.reached(known.address, stream.address()?))?
            && socket.cgroup.is_some()
        {
            return Ok(owns(&socket));
        }
        // Not accepted yet, or closed already.
        let Some(listener) = asked(|diag| diag.listener(known.address))? else { return Ok(false) };
        if !owns(&listener) {
            return Ok(false);
        }
        if Instant::now() < known.fresh_until {
            return Ok(true);
        }
        let all = Diag::all_that_share(&listener, owns)?;
        self.learn(all.then(|| Known { fresh_until: Instant::now() + FRESH, ..known }));
        Ok(all)
    }

    fn known(&self) -> Option<Known> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// What listens at an address.
enum Place {
    Empty,
    Owned,
    Taken(Option<u64>),
}

fn look(address: SocketAddr, owner: u64) -> io::Result<Place> {
    let Some(listener) = asked(|diag| diag.listener(address))? else { return Ok(Place::Empty) };
    let owns = |socket: &Socket| socket.cgroup == Some(owner);
    if owns(&listener) && Diag::all_that_share(&listener, owns)? {
        return Ok(Place::Owned);
    }
    Ok(Place::Taken(listener.cgroup.filter(|_| !owns(&listener))))
}

/// Asks by this thread's connection. One that failed is not used again.
fn asked<A>(question: impl FnOnce(&Diag) -> io::Result<A>) -> io::Result<A> {
    DIAG.with_borrow_mut(|kept| {
        let diag = match kept.take() {
            Some(diag) => diag,
            None => Diag::open()?,
        };
        let answer = question(&diag)?;
        *kept = Some(diag);
        Ok(answer)
    })
}

/// Opens this thread's way to the kernel's diagnosis now, so that a process has as many descriptors before its first question as
/// behind it, and a kernel without diagnosis shows at the start.
///
/// # Errors
/// As [`Diag::open`].
pub fn prepare_diagnosis() -> io::Result<()> {
    asked(|_| Ok(()))
}

/// The cgroup that sockets of this process belong to: for tests, which play services.
///
/// # Errors
/// Those of making a listener and asking for it.
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

    async fn dial_to_speak(address: SocketAddr) -> io::Result<Stream> {
        Stream::connect_tcp_to_speak(address).await
    }

    #[tokio::test]
    async fn the_owners_port_is_reached_on_either_loopback_address_and_again() {
        let ours = own_cgroup().unwrap();
        for place in ["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(place).await.unwrap();
            let port = OwnedPort::new(listener.local_addr().unwrap().port());
            for _ in 0..2 {
                port.connect(ours, dial).await.unwrap();
                let stream = port.connect(ours, dial_to_speak).await.unwrap();
                stream.send_all(b"hi").await.unwrap();
                let accepted = [listener.accept().await.unwrap(), listener.accept().await.unwrap()];
                let [_, (mut accepted, _)] = accepted;
                assert_eq!(accepted.read_u8().await.unwrap(), b'h', "{place}");
            }
        }
    }

    #[tokio::test]
    async fn a_port_of_another_cgroup_sees_no_connection() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let port = OwnedPort::new(at.port());
        let refused = port.connect(ours + 1, dial).await.unwrap_err();
        assert!(matches!(refused, NotReached::Taken(address, Some(by)) if address == at && by == ours));
        let text = refused.into_error("web", at.port()).to_string();
        assert_eq!(text, format!("what listens on {at} is no process of web"));
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err());
        drop(listener);
        assert!(matches!(port.connect(ours, dial).await, Err(NotReached::Nothing)));
    }

    #[tokio::test]
    async fn a_port_that_changed_hands_since_it_was_found_is_not_the_owners() {
        let ours = own_cgroup().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = OwnedPort::new(listener.local_addr().unwrap().port());
        port.connect(ours, dial).await.unwrap();
        // As if the owner had been another cgroup when it was found.
        port.learn(port.known().map(|known| Known { owner: ours + 1, ..known }));
        for dials in [false, true] {
            let refused = if dials {
                port.connect(ours + 1, dial_to_speak).await
            } else {
                port.connect(ours + 1, dial).await
            };
            assert!(matches!(refused, Err(NotReached::Taken(..))));
        }
    }
}
