//! Dates, their differences, and which dates are plausible.
//!
//! Invariant: pure, without I/O; it reads no clock.

mod units;

pub use units::{Date, EARLIEST, LATEST};
