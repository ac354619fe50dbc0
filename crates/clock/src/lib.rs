//! How the enclave's date is corrected by a source that is trusted, and when the date is trusted.
//!
//! Invariant: pure. Readings and the time since the boot are passed in, corrections are returned; the caller performs them. Whatever
//! a source states, the date is set at most once and not after [`Discipline::end_steps`], to one that is between [`EARLIEST`] and
//! [`LATEST`] but for the time that the reading took; every other correction is at most [`MAX_RATE_PPM`] of a [`PERIOD`].

mod discipline;
mod units;

pub use discipline::{
    Correction, Decision, Discipline, MAX_BOUND, MAX_RATE_PPM, PERIOD, Reading, Refusal, SourceLimits,
};
pub use units::{Date, EARLIEST, LATEST, Offset};
