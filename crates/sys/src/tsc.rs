//! How fast this machine's time stamp counter runs.
//!
//! Its law: a figure for an emulated guest's clock, measured against the system's own, never a source of time itself. Where
//! there is no such counter there is no figure.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reading the counter is an instruction"))]

use std::time::{Duration, Instant};

/// The shortest time over which a figure is believed: an error of a microsecond in reading the clock is then 0.01 %.
const LEAST: Duration = Duration::from_millis(10);

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    since: Instant,
    counter: u64,
}

impl Meter {
    /// Begins.
    #[must_use]
    pub fn start() -> Self {
        Self { since: Instant::now(), counter: counter() }
    }

    /// The counter's speed in kHz, once [`LEAST`] has gone by.
    #[must_use]
    pub fn khz(self) -> Option<u32> {
        let elapsed = self.since.elapsed();
        let ticks = counter().checked_sub(self.counter).filter(|ticks| *ticks > 0)?;
        if elapsed < LEAST {
            return None;
        }
        let khz = u128::from(ticks).checked_mul(1_000_000)?.checked_div(elapsed.as_nanos())?;
        u32::try_from(khz).ok()
    }
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux leaves it to user space (`CR4.TSD` is clear).
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
    fn a_measurement_that_has_just_begun_has_no_figure() {
        assert_eq!(Meter::start().khz(), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree_within_a_hundredth() {
        let figure = || {
            let meter = Meter::start();
            loop {
                if let Some(khz) = meter.khz() {
                    return f64::from(khz);
                }
            }
        };
        let (one, other) = (figure(), figure());
        assert!((one / other - 1.0).abs() < 0.01, "{one} and {other}");
    }
}
