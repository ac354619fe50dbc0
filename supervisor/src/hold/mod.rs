//! The supervisor's end of the socket pair to init.
//!
//! Invariant: messages from init arrive complete, in order, with their descriptors; messages to init are queued and
//! never block the supervisor.

mod client;

pub use client::{Hold, HoldError, Incoming, Outbox};
