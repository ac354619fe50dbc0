//! The supervisor's end of the socket pair to init.
//!
//! Its law: what init says arrives whole, in order, with its descriptors; what is said to init is queued and never makes
//! the supervisor wait.

mod client;

pub use client::{Hold, HoldError, Incoming, Outbox};
