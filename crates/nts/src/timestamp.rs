//! The formats of time in NTP packets (RFC 5905, section 6).
//!
//! Invariant: the era of a timestamp does not depend on any clock. The 32 bits of seconds wrap around in 2036, and this program is
//! not run before 2026: each value means the one date in the 136 years from then on.

use std::time::Duration;

use cloister_clock::{Date, EARLIEST};

/// Seconds from 1900, where era 0 begins, to 1970 (RFC 5905, figure 4).
const UNIX_EPOCH: i64 = 2_208_988_800;

/// Seconds of an era.
const ERA: i64 = 1 << 32;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A timestamp: 32 bits of seconds in an era, and 32 bits of their fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The timestamp of these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The timestamp of a date, rounded down to 2⁻³² s.
    #[must_use]
    pub fn of(date: Date) -> Self {
        let seconds = date.seconds().saturating_add(UNIX_EPOCH).rem_euclid(ERA);
        let nanos = u64::try_from(date.subsecond_nanos()).unwrap_or_default();
        Self((u64::try_from(seconds).unwrap_or_default() << 32) | ((nanos << 32) / NANOS_PER_SECOND))
    }

    /// The date that it means, rounded up to a nanosecond; between 2026 and 2162.
    #[must_use]
    pub fn date(self) -> Option<Date> {
        let in_era = i64::try_from(self.0 >> 32).ok()?.checked_sub(UNIX_EPOCH)?;
        let seconds = if in_era < EARLIEST.seconds() { in_era.checked_add(ERA)? } else { in_era };
        let nanos = (self.0 & u64::from(u32::MAX)).saturating_mul(NANOS_PER_SECOND).div_ceil(1 << 32);
        // The largest fraction rounds up to a whole second.
        let (carry, nanos) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
        Date::from_parts(seconds.checked_add(i64::try_from(carry).ok()?)?, i64::try_from(nanos).ok()?)
    }
}

/// A duration of 16 bits of seconds and 16 bits of their fraction, rounded up.
pub(crate) fn short(bits: u32) -> Duration {
    Duration::from_nanos(u64::from(bits).saturating_mul(NANOS_PER_SECOND).div_ceil(1 << 16))
}

/// Two to the power of `exponent` seconds, rounded up; at most 128 s.
pub(crate) fn power(exponent: i8) -> Duration {
    let shift = u32::from(exponent.unsigned_abs()).min(63);
    if exponent < 0 {
        Duration::from_nanos((NANOS_PER_SECOND >> shift).saturating_add(1))
    } else {
        Duration::from_secs(1 << shift.min(7))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2036-02-07T06:28:16Z, when the seconds are zero again (RFC 5905, figure 4).
    const ERA_1: i64 = ERA - UNIX_EPOCH;

    fn date(seconds: i64, nanos: i64) -> Date {
        Date::from_parts(seconds, nanos).unwrap()
    }

    #[test]
    fn known_dates_have_the_timestamps_of_the_specification() {
        // 1999-12-31T00:00:00Z is 3155587200 in era 0, and here the second before the one of 2136 that has the same bits.
        assert_eq!(Timestamp::of(date(946_598_400, 0)).bits() >> 32, 3_155_587_200);
        assert_eq!(Timestamp::of(date(ERA_1, 0)).bits(), 0);
        assert_eq!(Timestamp::of(date(ERA_1 - 1, 500_000_000)).bits(), 0xffff_ffff_8000_0000);
    }

    #[test]
    fn the_seconds_wrap_around_in_2036() {
        for (bits, expected) in [
            (0xffff_ffff_8000_0000, date(ERA_1 - 1, 500_000_000)),
            (0xffff_ffff_ffff_ffff, date(ERA_1, 0)),
            (0, date(ERA_1, 0)),
            (1 << 32, date(ERA_1 + 1, 0)),
        ] {
            assert_eq!(Timestamp::from_bits(bits).date(), Some(expected), "{bits:x}");
        }
    }

    #[test]
    fn an_era_begins_where_the_program_does() {
        let first = Timestamp::of(EARLIEST);
        assert_eq!(first.date(), Some(EARLIEST));
        // The second before is that of the next era.
        let before = Timestamp::from_bits(first.bits() - (1 << 32)).date().unwrap();
        assert_eq!(before.seconds(), EARLIEST.seconds() - 1 + ERA);
        assert!(!before.is_plausible());
    }

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(short(0x0001_8000), Duration::from_millis(1500));
        assert_eq!(short(1), Duration::from_nanos(15_259));
        assert_eq!(power(-1), Duration::from_nanos(500_000_001));
        assert_eq!(power(-128), Duration::from_nanos(1));
        assert_eq!((power(0), power(127)), (Duration::from_secs(1), Duration::from_secs(128)));
    }
}
