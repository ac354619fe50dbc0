//! What all relays of one service share: pipes and byte counters.
//!
//! Invariant: it is shared by reference and adds nothing to the cost of a connection.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pipes::Pipes;

/// The pipes and byte counters of one service.
#[derive(Debug, Default)]
pub struct Works {
    pub(crate) pipes: Pipes,
    from_boundary: AtomicU64,
    from_local: AtomicU64,
}

impl Works {
    /// Empty: pipes are created when the first stream needs one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Payload bytes read from the boundary so far, including by open connections.
    #[must_use]
    pub fn from_boundary(&self) -> u64 {
        self.from_boundary.load(Ordering::Relaxed)
    }

    /// Payload bytes read from local sockets so far, including by open connections.
    #[must_use]
    pub fn from_local(&self) -> u64 {
        self.from_local.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, from_boundary: u64, from_local: u64) {
        if from_boundary > 0 {
            self.from_boundary.fetch_add(from_boundary, Ordering::Relaxed);
        }
        if from_local > 0 {
            self.from_local.fetch_add(from_local, Ordering::Relaxed);
        }
    }
}
