//! Ingress: connections that the host dials are carried to the service behind a port of the manifest.
//!
//! Its law: the host chooses among the ports that the measured manifest names, and nothing else; what it says of the
//! client goes into logs and the PROXY header, never into a decision. A connection that is refused is closed at once,
//! counted, and logged at a bounded rate. Connections to one port never take the room that is kept for the others.
//!
//! | module | job |
//! |---|---|
//! | `connection` | one connection, from its header to its end |
//! | `proxy` | the PROXY protocol's header, version 2 |
//! | `refusal` | why a connection is refused, and how often that is said |

mod connection;
mod proxy;
mod refusal;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloister_manifest::model;
use cloister_net::{Gate, Listener, Stream, room};
use cloister_relay::Works;
use cloister_wire::control::IngressCounters;
use tokio::time::{Instant, sleep};

use crate::listener::{Listeners, ServicePort};
use refusal::{Quota, Refusal};

/// The most connections at once, divided among the ports as the host's side divides them. That lets more clients wait in
/// its listen queues, so this is met only by a host that does not.
const MOST_CONNECTIONS: usize = 4096;

/// Connections at once whose header has not been read yet, so that nothing says which port's room they take: a burst of
/// clients, for the moment until each header is read. More wait in the listen queue, at most [`connection::HEADER_TIME`].
const MOST_UNREAD: usize = 256;

/// Descriptors kept for everything but connections that are carried: 512 for listeners, log files, probes and pipes of the
/// relay, and one for each connection whose header has not been read.
const RESERVED_DESCRIPTORS: usize = 512 + MOST_UNREAD;

/// While connections come, one timer is always due before the deadline of any header. Tokio wakes its own reactor, by a write
/// and one more turn, for each timer that is due before all others (`reregister` of its time driver); with this one it does
/// so once in this time, not once a connection. Shorter than [`connection::HEADER_TIME`].
const BEAT: Duration = Duration::from_secs(4);

/// The ingress service. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
}

/// What hears of refused connections, one line at a time.
pub type Report = Box<dyn Fn(String) + Send + Sync>;

struct Shared {
    targets: BTreeMap<u16, Target>,
    /// Where connections wait until their header says which port they are for.
    unread: Gate,
    works: Works,
    draining: AtomicBool,
    accepted: AtomicU64,
    refused: AtomicU64,
    quota: Mutex<Quota>,
    report: Report,
}

/// Where a port leads.
#[derive(Debug)]
struct Target {
    port: ServicePort,
    proxy_protocol: bool,
    gate: Gate,
}

impl Ingress {
    /// The service for the manifest's `ingress` table. It raises the process's limit of descriptors as it needs.
    #[must_use]
    pub fn new(table: &[model::Ingress], listeners: &Listeners, report: Report) -> Self {
        Self::with_room(table, listeners, room(MOST_CONNECTIONS, RESERVED_DESCRIPTORS), report)
    }

    fn with_room(table: &[model::Ingress], listeners: &Listeners, room: usize, report: Report) -> Self {
        let gates = Gate::divide(room, table.len());
        let unread = gates.first().map_or_else(|| Gate::new(MOST_UNREAD), |gate| gate.beside(MOST_UNREAD));
        let target = |(entry, gate): (&model::Ingress, Gate)| {
            let port = listeners.port(&entry.service, entry.target);
            (entry.port, Target { port, proxy_protocol: entry.proxy_protocol, gate })
        };
        let shared = Shared {
            targets: table.iter().zip(gates).map(target).collect(),
            unread,
            works: Works::new(),
            draining: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            quota: Mutex::new(Quota::default()),
            report,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves `listener`, which listens on [`cloister_wire::ports::INGRESS`]. It ends only when it is dropped; the
    /// connections it has accepted go on.
    pub async fn serve(&self, listener: Listener) -> Infallible {
        let mut beat = pin!(sleep(BEAT));
        let mut beating = true;
        loop {
            tokio::select! {
                (stream, _) = self.shared.unread.next(&listener) => {
                    if !std::mem::replace(&mut beating, true) {
                        beat.as_mut().reset(Instant::now() + BEAT);
                    }
                    self.admit(stream).await;
                }
                () = beat.as_mut(), if beating => beating = false,
            }
        }
    }

    /// Refuses new connections from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until no connection is open. How long that may take is the caller's business.
    pub async fn empty(&self) {
        self.shared.unread.empty().await;
    }

    /// What has been carried so far.
    #[must_use]
    pub fn counters(&self) -> IngressCounters {
        let shared = &self.shared;
        IngressCounters {
            accepted: shared.accepted.load(Ordering::Relaxed),
            open: u64::try_from(shared.unread.inside()).unwrap_or(u64::MAX),
            refused: shared.refused.load(Ordering::Relaxed),
            bytes_in: shared.works.from_boundary(),
            bytes_out: shared.works.from_local(),
        }
    }

    /// Takes a connection in, as soon as there is room for one more whose header has not been read.
    async fn admit(&self, stream: Stream) {
        if self.shared.draining.load(Ordering::Relaxed) {
            return self.shared.refuse(&Refusal::Draining);
        }
        let unread = self.shared.unread.enter().await;
        let shared = Arc::clone(&self.shared);
        drop(tokio::spawn(async move {
            if let Err(refusal) = connection::carry(stream, &shared, unread).await {
                shared.refuse(&refusal);
            }
        }));
    }
}

impl Shared {
    fn refuse(&self, refusal: &Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let said = self.quota.lock().unwrap_or_else(PoisonError::into_inner).say(Instant::now(), refusal);
        if let Some(line) = said {
            (self.report)(line);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("targets", &self.targets)
            .field("unread", &self.unread)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
