//! From readings of a source to corrections of the date, and to what is known about its error.
//!
//! Invariant: the error of the date is at most [`Discipline::bound`] if the source's own error is at most the one that was assumed.
//! Nothing is known before the first reading that was applied.

use std::fmt;
use std::time::Duration;

use crate::units::{Date, EARLIEST, LATEST, Offset};

/// Time between two rounds of readings. In this time a clock that drifts by [`DRIFT_PPM`] is off by 6 ms.
pub const PERIOD: Duration = Duration::from_mins(1);

/// By how many millionths the date may run faster or slower while it is corrected. It is what Linux itself uses for `adjtime`
/// (`MAX_TICKADJ` of `kernel/time/ntp.c`), and five times [`DRIFT_PPM`], so that a correction always catches up.
pub const MAX_RATE_PPM: u32 = 500;

/// By how many millionths an uncorrected clock may be wrong. Crystals are specified within 50; enclaves were seen to drift by some
/// seconds in a week, which is 10. The host of an SNP machine can make it any number, but no source is trusted there.
const DRIFT_PPM: u32 = 100;

/// The date is trusted if its error is at most this. Certificates, tokens and signatures with a time allow for at least a second;
/// without further readings it is reached after less than three hours.
pub const MAX_BOUND: Duration = Duration::from_secs(1);

/// An offset up to this is never a reason to set the date: the correction takes a minute or two.
const MIN_STEP: Duration = Duration::from_millis(50);

/// One reading of a source, between two readings of the clock that is to be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The clock, before.
    pub before: Date,
    /// The source.
    pub source: Date,
    /// The clock, after.
    pub after: Date,
}

/// What is assumed about a source.
#[derive(Clone, Copy, Debug)]
pub struct SourceLimits {
    /// Readings that took longer are not used: an attacker who delays an answer could move the date by half of that.
    pub max_round_trip: Duration,
    /// The error of the source itself.
    pub error: Duration,
}

/// Why a round of readings was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no reading in which the clock did not run backwards.
    NoReading,
    /// The fastest reading took this long.
    Slow(Duration),
    /// The source states a date before [`crate::EARLIEST`] or after [`crate::LATEST`].
    Implausible(Date),
}

/// What to do with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Set it: add this.
    Step(Offset),
    /// Let it run faster or slower until this has been added.
    Slew(Offset),
}

/// A correction, and what is known once it has been performed.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    correction: Correction,
    estimate: Estimate,
}

/// What is known about the date.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// Its error at the time of the reading, with the part that the correction has not removed.
    error: Duration,
    /// The time of the reading, since boot.
    at: Duration,
}

/// The state of one clock and its source.
#[derive(Debug)]
pub struct Discipline {
    limits: SourceLimits,
    may_step: bool,
    estimate: Option<Estimate>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReading => f.write_str("there is no usable reading"),
            Self::Slow(took) => write!(f, "the fastest reading took {} µs", took.as_micros()),
            Self::Implausible(date) => {
                write!(f, "it returned {} s after 1970, the limits are ", date.seconds())?;
                write!(f, "{} and {}", EARLIEST.seconds(), LATEST.seconds())
            }
        }
    }
}

impl Reading {
    /// How long it took; `None` if the clock ran backwards.
    fn round_trip(&self) -> Option<Duration> {
        (self.after >= self.before).then(|| self.after.since(self.before).magnitude())
    }

    /// What must be added to the clock, assuming that the source was read in the middle.
    fn offset(&self) -> Offset {
        self.source.since(self.before.midpoint(self.after))
    }
}

impl Decision {
    /// What to do.
    #[must_use]
    pub const fn correction(&self) -> Correction {
        self.correction
    }
}

impl Discipline {
    /// A clock about which nothing is known. `may_step`: the first correction may set it, since nothing runs yet that would be
    /// disturbed, until [`Self::end_steps`].
    #[must_use]
    pub const fn new(limits: SourceLimits, may_step: bool) -> Self {
        Self { limits, may_step, estimate: None }
    }

    /// From now on the clock is never set: something may run that would be disturbed.
    pub const fn end_steps(&mut self) {
        self.may_step = false;
    }

    /// Decides by a round of readings made at `now`, the time since boot: the fastest counts, since its error is the smallest.
    ///
    /// # Errors
    /// If none can be used. The clock then goes on as it does.
    pub fn decide(&self, readings: &[Reading], now: Duration) -> Result<Decision, Refusal> {
        let fastest =
            readings.iter().filter_map(|reading| Some((reading.round_trip()?, reading))).min_by_key(|r| r.0);
        let (round_trip, reading) = fastest.ok_or(Refusal::NoReading)?;
        if round_trip > self.limits.max_round_trip {
            return Err(Refusal::Slow(round_trip));
        }
        if !reading.source.is_plausible() {
            return Err(Refusal::Implausible(reading.source));
        }
        let offset = reading.offset();
        let reading_error = (round_trip / 2).saturating_add(self.limits.error);
        let steps = self.may_step && self.estimate.is_none() && offset.magnitude() > MIN_STEP;
        let (correction, left) = if steps {
            (Correction::Step(offset), Duration::ZERO)
        } else {
            (Correction::Slew(offset.limited(millionths(PERIOD, MAX_RATE_PPM))), offset.magnitude())
        };
        let estimate = Estimate { error: reading_error.saturating_add(left), at: now };
        Ok(Decision { correction, estimate })
    }

    /// Records that the correction was performed.
    pub const fn performed(&mut self, decision: &Decision) {
        self.estimate = Some(decision.estimate);
    }

    /// The error of the date at `now` at most; `None` if nothing is known.
    #[must_use]
    pub fn bound(&self, now: Duration) -> Option<Duration> {
        let estimate = self.estimate?;
        Some(estimate.error.saturating_add(millionths(now.saturating_sub(estimate.at), DRIFT_PPM)))
    }

    /// Whether the date is trusted at `now`.
    #[must_use]
    pub fn is_trusted(&self, now: Duration) -> bool {
        self.bound(now).is_some_and(|bound| bound <= MAX_BOUND)
    }
}

/// So many millionths of a duration, rounded up.
fn millionths(of: Duration, ppm: u32) -> Duration {
    const MILLION: u128 = 1_000_000;
    let nanos = of.as_nanos().saturating_mul(u128::from(ppm)).div_ceil(MILLION);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
