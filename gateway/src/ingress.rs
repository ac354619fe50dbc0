//! Ingress: connections that the host dials are carried to the service behind a port of the manifest.
//!
//! Its law: the host chooses among the ports that the measured manifest names, and nothing else; what it says of the
//! client goes into logs and the PROXY header, never into a decision. A connection that is refused is closed at once,
//! counted, and reported at a bounded rate. Connections to one port never take the room that is kept for the others.

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

/// While connections come, one timer is always due before the deadline of any header. Tokio wakes its own reactor, by a write
/// and one more turn, for each timer that is due before all others (`reregister` of its time driver); with this one it does
/// so once in this time, not once a connection. Shorter than [`connection::HEADER_TIME`].
const BEAT: Duration = Duration::from_secs(4);

/// Messages to the supervisor that wait to be sent: the loans of all connections, an answer of each other kind, and lines about
/// refused connections as far as there is room.
const OUTGOING: usize = 64;

/// The ingress service. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
}

impl Ingress {
    /// The service with room for so many connections at once, which serves once it has a [table](Self::learn), and what it wants
    /// to tell the supervisor.
    #[must_use]
    pub fn new(room: usize) -> (Self, mpsc::Receiver<FromGateway>) {
        let (outgoing, told) = mpsc::channel(OUTGOING);
        let shared = Shared::new(room, outgoing);
        (Self { shared: Arc::new(shared) }, told)
    }

    /// Takes the supervisor's word of where the ports lead. The ports are those of the first.
    pub fn learn(&self, targets: Vec<Target>) {
        let table = self.shared.table.borrow().clone();
        if let Some(table) = table {
            table.update(&targets);
        } else {
            let table = Arc::new(Table::new(targets, self.shared.room));
            self.shared.table.send_replace(Some(table));
        }
    }

    /// Serves `listener`, which listens on [`cloister_wire::ports::INGRESS`]. It ends only when it is dropped; the
    /// connections it has accepted go on.
    pub async fn serve(&self, listener: Listener) -> Infallible {
        let table = self.table().await;
        let mut beat = pin!(sleep(BEAT));
        let mut beating = true;
        loop {
            tokio::select! {
                (stream, _) = table.unread.next(&listener) => {
                    if !std::mem::replace(&mut beating, true) {
                        beat.as_mut().reset(Instant::now() + BEAT);
                    }
                    self.admit(stream, &table).await;
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
        let table = self.shared.table.borrow().clone();
        if let Some(table) = table {
            table.unread.empty().await;
        }
    }

    /// What has been carried so far.
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

    /// Waits until the counters differ from those of the last time.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Tells the supervisor.
    pub(crate) async fn tell(&self, message: FromGateway) {
        // Its receiver ends with the process.
        self.shared.outgoing.send(message).await.unwrap_or_default();
    }

    /// Takes a socket that the supervisor made.
    pub(crate) fn loaned(&self, id: u64, socket: Option<OwnedFd>, errno: Option<i32>) {
        self.shared.loans.answered(id, socket, errno);
    }

    /// The table, once there is one.
    async fn table(&self) -> Arc<Table> {
        let mut tables = self.shared.table.subscribe();
        loop {
            let table = tables.borrow_and_update().clone();
            if let Some(table) = table {
                return table;
            }
            // The sender is here, so this waits.
            tables.changed().await.unwrap_or_default();
        }
    }

    /// Takes a connection in, as soon as there is room for one more whose header has not been read.
    async fn admit(&self, stream: Stream, table: &Arc<Table>) {
        if self.shared.draining.load(Ordering::Relaxed) {
            return self.shared.refuse(&Refusal::Draining);
        }
        let unread = table.unread.enter().await;
        let (shared, table) = (Arc::clone(&self.shared), Arc::clone(table));
        drop(tokio::spawn(async move {
            if let Err(refusal) = connection::carry(stream, &shared, &table, unread).await {
                shared.refuse(&refusal);
            }
            shared.changed.notify_one();
        }));
    }
}

#[cfg(test)]
mod tests;
