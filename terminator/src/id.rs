//! IDs of requests to the attestor.
//!
//! Invariant: no reply to a predecessor of this process has the ID of a request of this one, although it may still be in the socket
//! pair, which init holds: each counts up from a random number. The process ID would not do, as every servant is process 1.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// What the first ID follows.
pub(crate) fn first() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // So few bytes are never returned in part (random(7)).
    let _count = getrandom(&mut bytes, GetRandomFlags::empty())?;
    // IDs never reach the end of their range.
    Ok(u64::from_le_bytes(bytes) >> 1)
}
