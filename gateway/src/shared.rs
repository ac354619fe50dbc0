//! The state that all threads and connections share: the table, the counters, and the queue to the supervisor.
//!
//! Invariant: no connection waits for the supervisor to read a line about another one.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_relay::Works;
use cloister_wire::control::bounded;
use cloister_wire::gateway::{FromGateway, MAX_LINE};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::loans::Loans;
use crate::refusal::{Quota, Refusal};
use crate::table::Table;

/// The state that all threads and connections share.
pub(crate) struct Shared {
    /// Maximum number of concurrent connections.
    pub(crate) capacity: usize,
    /// The targets of the ports, once the supervisor has sent them.
    pub(crate) table: watch::Sender<Option<Arc<Table>>>,
    pub(crate) loans: Loans,
    pub(crate) works: Works,
    pub(crate) draining: AtomicBool,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Signals that the counters have changed since they were reported.
    pub(crate) changed: Notify,
    pub(crate) quota: Mutex<Quota>,
    pub(crate) outgoing: mpsc::Sender<FromGateway>,
    /// The pair to the terminator, if there is one.
    pub(crate) terminator: Option<OwnedFd>,
}

impl Shared {
    pub(crate) fn new(
        capacity: usize,
        terminator: Option<OwnedFd>,
        outgoing: mpsc::Sender<FromGateway>,
    ) -> Self {
        Self {
            capacity,
            terminator,
            table: watch::Sender::new(None),
            loans: Loans::new(outgoing.clone()),
            works: Works::new(),
            draining: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            changed: Notify::new(),
            quota: Mutex::new(Quota::default()),
            outgoing,
        }
    }

    /// Counts a refused connection, and reports it as far as the quota allows.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        let line = self.quota.lock().unwrap_or_else(PoisonError::into_inner).line(Instant::now(), refusal);
        if let Some(line) = line {
            let line = bounded(&line, MAX_LINE);
            // If the supervisor does not read, the line is lost, but no connection waits.
            self.outgoing.try_send(FromGateway::Refused { line }).unwrap_or_default();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("table", &self.table).finish_non_exhaustive()
    }
}
