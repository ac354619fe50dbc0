//! The current status, for all readers.
//!
//! Invariant: its number increases with each change, also across crashes of the supervisor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cloister_wire::control::{FinishedStage, IngressCounters, Register, ServiceStatus, State, Status, Time};
use tokio::sync::watch;

use super::time;
use crate::clock::Moment;

/// The current status and the source of its counters.
pub struct Board {
    current: watch::Sender<Status>,
    ingress: Mutex<Box<dyn Fn() -> IngressCounters + Send>>,
    time: Mutex<Box<dyn Fn(Time) -> Time + Send>>,
    /// Whether the trust in the date has changed since the last publication.
    new_time: AtomicBool,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("current", &*self.current.borrow()).finish_non_exhaustive()
    }
}

impl Board {
    /// A board with the state `booting`.
    #[must_use]
    pub fn new(platform: String, boot: Vec<FinishedStage>, supervisor_restarts: u32) -> Self {
        let status = Status {
            seq: 1,
            state: State::Booting,
            platform,
            uptime_ms: 0,
            supervisor_restarts,
            boot,
            services: Vec::new(),
            servants: Vec::new(),
            ingress: IngressCounters::default(),
            registers: Vec::new(),
            time: None,
        };
        Self {
            current: watch::Sender::new(status),
            ingress: Mutex::new(Box::new(IngressCounters::default)),
            time: Mutex::new(Box::new(|uncorrected| uncorrected)),
            new_time: AtomicBool::new(false),
        }
    }

    /// Sets the measurement registers of this machine.
    pub fn measured(&self, registers: Vec<Register>) {
        self.current.send_modify(|status| status.registers = registers);
    }

    /// Sets the source of the ingress counters.
    pub fn count_ingress<F: Fn() -> IngressCounters + Send + 'static>(&self, counters: F) {
        *self.ingress.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(counters);
    }

    /// Sets what knows how far the date can be trusted. It is passed what is true of a date that was not corrected.
    pub fn keep_time<F: Fn(Time) -> Time + Send + 'static>(&self, time: F) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(time);
    }

    /// Records that the date is trusted now, or no longer: the next [`Self::publish`] is a change.
    pub fn time_changed(&self) {
        self.new_time.store(true, Ordering::Relaxed);
    }

    /// Whether that has not been published yet.
    #[must_use]
    pub fn has_new_time(&self) -> bool {
        self.new_time.load(Ordering::Relaxed)
    }

    /// Continues the numbers from `seq`, which an earlier supervisor reached.
    pub fn resume_from(&self, seq: u64) {
        self.current.send_modify(|status| status.seq = status.seq.max(seq).saturating_add(1));
    }

    /// Adds a boot stage of the supervisor after init's.
    pub fn add_stage(&self, name: &str, began: Moment, ended: Moment) {
        let stage = FinishedStage {
            name: name.to_owned(),
            at_us: began.micros(),
            took_us: ended.micros().saturating_sub(began.micros()),
        };
        self.current.send_modify(|status| status.boot.push(stage));
    }

    /// Publishes a state, and returns its number. Publishing the current state again changes nothing.
    pub fn publish(&self, state: State, services: Vec<ServiceStatus>, servants: Vec<ServiceStatus>) -> u64 {
        self.current.send_if_modified(|status| {
            let new_time = self.new_time.swap(false, Ordering::Relaxed);
            let changed = new_time
                || status.state != state
                || status.services != services
                || status.servants != servants;
            if changed {
                status.seq = status.seq.saturating_add(1);
                status.state = state;
                status.services = services;
                status.servants = servants;
            }
            changed
        });
        self.current.borrow().seq
    }

    /// The current status.
    #[must_use]
    pub fn read(&self) -> Status {
        let counters = (self.ingress.lock().unwrap_or_else(PoisonError::into_inner))();
        let status = self.current.borrow().clone();
        Status { uptime_ms: Moment::now().millis(), ingress: counters, time: Some(self.time()), ..status }
    }

    /// How far the date can be trusted now.
    #[must_use]
    pub fn time(&self) -> Time {
        (self.time.lock().unwrap_or_else(PoisonError::into_inner))(time::uncorrected())
    }

    /// Notifies of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_increases_only_with_changes() {
        let board = Board::new("virtual".into(), Vec::new(), 0);
        let first = board.publish(State::Starting, Vec::new(), Vec::new());
        assert_eq!(board.publish(State::Starting, Vec::new(), Vec::new()), first);
        assert_eq!(board.publish(State::Ready, Vec::new(), Vec::new()), first + 1);
        board.resume_from(100);
        assert_eq!(board.publish(State::Starting, Vec::new(), Vec::new()), 102);
        board.time_changed();
        assert_eq!(board.read().seq, 102, "a number is published in a turn, which saves it");
        assert_eq!(board.publish(State::Starting, Vec::new(), Vec::new()), 103);
        assert_eq!(board.publish(State::Starting, Vec::new(), Vec::new()), 103);
    }
}
