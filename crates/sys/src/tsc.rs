//! The frequency of this machine's time stamp counter.
//!
//! Invariant: the frequency is measured against the system clock and used for the clock of an emulated guest, never as
//! a source of time. On machines without such a counter there is no result.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reading the counter is an instruction"))]

use std::time::{Duration, Instant};

/// Minimum duration of a measurement: an error of 1 µs in reading the clock is then 0.01 %.
const MIN_DURATION: Duration = Duration::from_millis(10);

/// A measurement in progress.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    since: Instant,
    counter: u64,
}

impl Meter {
    /// Starts a measurement.
    #[must_use]
    pub fn start() -> Self {
        Self { since: Instant::now(), counter: counter() }
    }

    /// The counter's frequency in kHz, once [`MIN_DURATION`] has passed.
    #[must_use]
    pub fn khz(self) -> Option<u32> {
        let elapsed = self.since.elapsed();
        let ticks = counter().checked_sub(self.counter).filter(|ticks| *ticks > 0)?;
        if elapsed < MIN_DURATION {
            return None;
        }
        let khz = u128::from(ticks).checked_mul(1_000_000)?.checked_div(elapsed.as_nanos())?;
        u32::try_from(khz).ok()
    }
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux permits it in user space (`CR4.TSD` is clear).
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
const fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_has_just_started_has_no_result() {
        assert_eq!(Meter::start().khz(), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree_within_one_percent() {
        let measure = || {
            let meter = Meter::start();
            loop {
                if let Some(khz) = meter.khz() {
                    return f64::from(khz);
                }
            }
        };
        let (one, other) = (measure(), measure());
        assert!((one / other - 1.0).abs() < 0.01, "{one} and {other}");
    }
}
