//! Ingress: forwards connections of the host to the service behind a port of the manifest.
//!
//! Invariant: the host can only choose among the ports that the measured manifest names; the client address that it
//! reports is used in logs and the PROXY header, never in a decision. A refused connection is closed immediately,
//! counted, and reported at a bounded rate. Connections to one port never use the capacity that is reserved for others.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister_net::{Listener, Stream};
use cloister_wire::control::IngressCounters;
use cloister_wire::gateway::{FromGateway, Target};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::connection;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::table::Table;

/// While connections arrive, one timer is always due before the deadline of any header. Tokio wakes its own reactor, by
/// a write and another turn, for each timer that is due before all others (`reregister` of its time driver); with this
/// one it does so once per this interval, not once per connection. Shorter than [`connection::HEADER_TIME`].
const FIRST_TIMER: Duration = Duration::from_secs(4);

/// Queue of messages to the supervisor: the loan requests of all connections, a message of each other kind, and lines
/// about refused connections while there is space.
const OUTGOING: usize = 64;

/// The ingress service. Clones share it.
#[derive(Clone, Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
}

impl Ingress {
    /// A service for at most `capacity` concurrent connections, those of the attestation server included, and its messages to the
    /// supervisor. It starts serving once it has a [table](Self::set_table).
    #[must_use]
    pub fn new(capacity: usize, terminator: Option<OwnedFd>) -> (Self, mpsc::Receiver<FromGateway>) {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let shared = Shared::new(capacity, terminator, outgoing);
        (Self { shared: Arc::new(shared) }, messages)
    }

    /// Sets or updates the targets of the ports. The first call determines the ports.
    pub fn set_table(&self, targets: Vec<Target>, attestation: Option<u16>) {
        let table = self.shared.table.borrow().clone();
        if let Some(table) = table {
            table.update(&targets);
        } else {
            let table = Arc::new(Table::new(targets, attestation, self.shared.capacity));
            self.shared.table.send_replace(Some(table));
        }
    }

    /// Serves `listener`, which listens on [`cloister_wire::ports::INGRESS`]. It stops only when it is dropped;
    /// accepted connections continue.
    pub async fn serve(&self, listener: Listener) -> Infallible {
        let table = self.table().await;
        let mut timer = pin!(sleep(FIRST_TIMER));
        let mut is_armed = true;
        loop {
            tokio::select! {
                (stream, _) = table.unread.next(&listener) => {
                    if !std::mem::replace(&mut is_armed, true) {
                        timer.as_mut().reset(Instant::now() + FIRST_TIMER);
                    }
                    self.admit(stream, &table).await;
                }
                () = timer.as_mut(), if is_armed => is_armed = false,
            }
        }
    }

    /// Starts refusing new connections.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until no connection is open. The caller limits the time.
    pub async fn empty(&self) {
        let table = self.shared.table.borrow().clone();
        if let Some(table) = table {
            table.unread.empty().await;
        }
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> IngressCounters {
        let shared = &self.shared;
        let open = shared.table.borrow().as_ref().map_or(0, |table| table.unread.inside());
        IngressCounters {
            accepted: shared.accepted.load(Ordering::Relaxed),
            open: u64::try_from(open).unwrap_or(u64::MAX),
            refused: shared.refused.load(Ordering::Relaxed),
            bytes_in: shared.works.from_boundary(),
            bytes_out: shared.works.from_local(),
        }
    }

    /// Waits until the counters have changed since the last call.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Sends a message to the supervisor.
    pub(crate) async fn report(&self, message: FromGateway) {
        // The receiver exists as long as the process.
        self.shared.outgoing.send(message).await.unwrap_or_default();
    }

    /// Handles the supervisor's reply to a loan request.
    pub(crate) fn loaned(&self, id: u64, socket: Option<OwnedFd>, errno: Option<i32>) {
        self.shared.loans.resolve(id, socket, errno);
    }

    /// The table, once there is one.
    async fn table(&self) -> Arc<Table> {
        let mut tables = self.shared.table.subscribe();
        loop {
            let table = tables.borrow_and_update().clone();
            if let Some(table) = table {
                return table;
            }
            // `self` owns the sender, so this cannot fail.
            tables.changed().await.unwrap_or_default();
        }
    }

    /// Serves a connection, as soon as there is a slot for another one whose header has not been read.
    async fn admit(&self, stream: Stream, table: &Arc<Table>) {
        if self.shared.draining.load(Ordering::Relaxed) {
            return self.shared.refuse(&Refusal::Draining);
        }
        let unread = table.unread.enter().await;
        let (shared, table) = (Arc::clone(&self.shared), Arc::clone(table));
        drop(tokio::spawn(async move {
            if let Err(refusal) = connection::forward(stream, &shared, &table, unread).await {
                shared.refuse(&refusal);
            }
            shared.changed.notify_one();
        }));
    }
}

#[cfg(test)]
mod tests;
