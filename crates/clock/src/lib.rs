//! How the enclave's date is corrected by a source that is trusted, and when the date is trusted.
//!
//! Invariant: pure. Readings and the time since the boot are passed in, corrections are returned; the caller performs them. Whatever
//! a source states, the date stays between [`EARLIEST`] and [`LATEST`], is set at most once, and then changes by at most
//! [`MAX_RATE_PPM`].

mod discipline;
mod units;

pub use discipline::{
    Correction, Discipline, Judgement, MAX_BOUND, MAX_RATE_PPM, PERIOD, Reading, Refusal, SourceLimits,
};
pub use units::{Date, EARLIEST, LATEST, Offset};
