//! Connections to a service's own port: from its probes and from ingress.
//!
//! Its law: a port number is nobody's. All services share one loopback interface, and while one restarts another can listen
//! where it did. A connection counts only if the socket that took it is held by a process of the service's cgroup, before
//! and after it was made.
//!
//! | module | job |
//! |---|---|
//! | `table` | which sockets listen on a port, as the kernel lists them |
//! | `holder` | which of a service's processes holds a socket |
//!
//! The kernel tells a socket's cgroup itself only with `INET_DIAG` and `CGROUP_BPF` or the like, which the enclave's kernel
//! does not have. The list of listeners is read once in a [`FRESH`] for a port that is in use, and a service's descriptors are
//! looked through when it listens with another socket than before. For each connection one link of `/proc` is read, twice.
//! Neither takes more than a fifth of the supervisor's time, however many listeners and descriptors there are.

mod holder;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloister_net::Stream;
use tokio::time::{Instant, sleep_until};

use crate::world::Paths;
use holder::Holder;
use table::Table;

/// Where a service can listen, in the order tried: most listen on IPv4 or on both.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How long it is believed that no other socket shares the port (`SO_REUSEPORT`): a look-up a second costs a busy ingress
/// nothing that could be measured.
const FRESH: Duration = Duration::from_secs(1);

/// How long it is believed that another program has the port. A look-up that finds that goes through all descriptors of the
/// service; clients must not have it made as often as they like.
const TAKEN: Duration = Duration::from_millis(100);

/// How long a look through descriptors is followed by none for the same port, in times of what it took.
const RESTS: u32 = 4;

/// All that listens in the enclave. Clones are the same.
#[derive(Clone, Debug)]
pub struct Listeners {
    table: Arc<Table>,
    proc: PathBuf,
    cgroups: PathBuf,
}

impl Listeners {
    /// Those that `/proc` of these paths shows.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        let table = Arc::new(Table::new(paths.proc.clone()));
        Self { table, proc: paths.proc.clone(), cgroups: paths.cgroups.clone() }
    }

    /// The port `port` of `service`.
    #[must_use]
    pub fn port(&self, service: &str, port: u16) -> ServicePort {
        ServicePort {
            service: service.to_owned(),
            port,
            table: Arc::clone(&self.table),
            proc: self.proc.clone(),
            cgroup: self.cgroups.join(service),
            known: Mutex::default(),
            rests_until: Mutex::new(Instant::now()),
        }
    }
}

/// The port of a service on the loopback interface.
pub struct ServicePort {
    service: String,
    port: u16,
    table: Arc<Table>,
    proc: PathBuf,
    cgroup: PathBuf,
    known: Mutex<Known>,
    /// Until then nobody looks through the service's descriptors.
    rests_until: Mutex<Instant>,
}

/// What was found out last.
#[derive(Clone, Default)]
enum Known {
    #[default]
    Nothing,
    /// Where the service listens.
    Listens(Arc<Seat>),
    /// Another program does, until then.
    Taken(Instant, SocketAddr),
}

/// An address, and the service's own sockets that listen there: all that do.
struct Seat {
    address: SocketAddr,
    holders: Vec<Holder>,
    fresh_until: Instant,
}

impl Seat {
    fn is_held(&self) -> bool {
        self.holders.iter().all(Holder::holds)
    }
}

impl ServicePort {
    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.port
    }

    /// Connects to the service, on `127.0.0.1` or else on `::1`. `speaks`: as [`Stream::connect_tcp_to_speak`].
    ///
    /// # Errors
    /// Where nothing listens, or another program does, the text says on which addresses. Else those of connecting.
    pub async fn connect(&self, speaks: bool) -> io::Result<Stream> {
        loop {
            match self.known() {
                Known::Taken(until, address) if Instant::now() < until => return Err(self.taken(address)),
                Known::Listens(seat) if Instant::now() < seat.fresh_until && seat.is_held() => {
                    // An error may be that of a service that listens elsewhere by now.
                    if let Ok(stream) = dial(&seat, speaks).await {
                        return Ok(stream);
                    }
                }
                _ => {}
            }
            // Others may have waited as well, and one of them has looked by then.
            let rests_until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() >= rests_until {
                break;
            }
            sleep_until(rests_until).await;
        }
        let mut last = None;
        for seat in self.find()? {
            match dial(&seat, speaks).await {
                Ok(stream) => {
                    self.learn(Known::Listens(Arc::new(seat)));
                    return Ok(stream);
                }
                // It listens no more, which the list did not say yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.nothing()))
    }

    /// Where the service listens now.
    fn find(&self) -> io::Result<Vec<Seat>> {
        let found = self.table.listening(self.port)?;
        let reached = LOOPBACKS.map(|ip| table::reached(&found.sockets, ip));
        let held = self.held(reached.iter().flatten().copied().collect())?;
        let (mut seats, mut taken) = (Vec::new(), None);
        for (ip, inodes) in LOOPBACKS.into_iter().zip(&reached) {
            let address = SocketAddr::new(ip, self.port);
            let holders: Option<Vec<Holder>> = inodes.iter().map(|inode| held.get(inode).cloned()).collect();
            match holders {
                Some(holders) if holders.is_empty() => {}
                Some(holders) => seats.push(Seat { address, holders, fresh_until: Instant::now() + FRESH }),
                None => taken = taken.or(Some(address)),
            }
        }
        match (seats.is_empty(), taken) {
            (false, _) => Ok(seats),
            // Of an older reading it may be the service's own socket, which it has closed since.
            (true, Some(address)) if found.is_new => {
                self.learn(Known::Taken(Instant::now() + TAKEN, address));
                Err(self.taken(address))
            }
            (true, Some(_)) => Err(self.nothing()),
            (true, None) => self.hidden(found.is_cut).ok_or_else(|| self.nothing()),
        }
    }

    /// Which of these sockets the service holds, and how. Looking for it is followed by a rest.
    fn held(&self, inodes: BTreeSet<u64>) -> io::Result<BTreeMap<u64, Holder>> {
        let seat = match self.known() {
            Known::Listens(seat) => Some(seat),
            _ => None,
        };
        let known = seat.as_ref().map_or(&[][..], |seat| &seat.holders);
        let began = Instant::now();
        let held = holder::find(&self.proc, &self.cgroup, known, inodes);
        let now = Instant::now();
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) =
            now + now.duration_since(began).saturating_mul(RESTS);
        held
    }

    /// The service's own sockets as they were found last, where they may stand behind the end of a list that was `cut`.
    fn hidden(&self, cut: bool) -> Option<Vec<Seat>> {
        match self.known() {
            Known::Listens(seat) if cut && seat.is_held() => {
                let (address, holders) = (seat.address, seat.holders.clone());
                Some(vec![Seat { address, holders, fresh_until: Instant::now() + FRESH }])
            }
            _ => None,
        }
    }

    fn nothing(&self) -> io::Error {
        let port = self.port;
        io::Error::new(
            ErrorKind::ConnectionRefused,
            format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}"),
        )
    }

    fn taken(&self, address: SocketAddr) -> io::Error {
        let text = format!("what listens on {address} is no process of {}", self.service);
        io::Error::new(ErrorKind::AddrInUse, text)
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl fmt::Debug for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServicePort")
            .field("service", &self.service)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Connects, and looks whether the sockets that could take the connection are still the service's.
async fn dial(seat: &Seat, speaks: bool) -> io::Result<Stream> {
    let address = seat.address;
    let stream = if speaks {
        Stream::connect_tcp_to_speak(address).await?
    } else {
        Stream::connect_tcp(address).await?
    };
    if seat.is_held() {
        return Ok(stream);
    }
    Err(io::Error::new(
        ErrorKind::ConnectionAborted,
        format!("the listener on {address} was closed meanwhile"),
    ))
}

#[cfg(test)]
mod tests;
