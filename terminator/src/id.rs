//! IDs of requests to the attestor.
//!
//! Invariant: no reply to a predecessor of this process has the ID of a request of this one, although it may still be in the socket
//! pair, which init holds. Each counts up from the time of its start, much more slowly than the nanoseconds pass.

use rustix::time::{ClockId, clock_gettime};

/// What the first ID follows.
pub(crate) fn first() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}
