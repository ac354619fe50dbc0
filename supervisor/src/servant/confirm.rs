//! Whether a servant serves, which it reports when it is asked.
//!
//! Invariant: a report counts only if it repeats the ID of the last request: one of a predecessor, or to an earlier supervisor,
//! does not.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// The last request.
#[derive(Debug, Default)]
pub(super) struct Confirmation(AtomicU64);

impl Confirmation {
    /// The ID of a new request.
    pub(super) fn ask(&self) -> u64 {
        let id = Moment::now().nanos();
        self.0.store(id, Ordering::Relaxed);
        id
    }

    /// Whether this is the ID of the last request.
    pub(super) fn is_last(&self, id: u64) -> bool {
        self.0.load(Ordering::Relaxed) == id
    }
}
