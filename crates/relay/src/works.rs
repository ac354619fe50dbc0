//! What all relays of one service share: the pipes and the meter.
//!
//! Its law: it is taken by reference and costs a connection nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pipes::Pipes;

/// The pipes and the meter of one service.
#[derive(Debug, Default)]
pub struct Works {
    pub(crate) pipes: Pipes,
    from_boundary: AtomicU64,
    from_local: AtomicU64,
}

impl Works {
    /// No pipes yet, and nothing counted: pipes are made when the first stream flows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Payload bytes taken from the boundary so far, by connections that are open as well.
    #[must_use]
    pub fn from_boundary(&self) -> u64 {
        self.from_boundary.load(Ordering::Relaxed)
    }

    /// Payload bytes taken from local sockets so far, by connections that are open as well.
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
