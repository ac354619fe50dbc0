//! Dates and differences of dates.
//!
//! Invariant: a number has its unit in its type. A date is made of seconds and nanoseconds that are less than a second, so that a
//! value in another unit is refused where it is read.

use std::time::Duration;

/// 2026-01-01T00:00:00Z: this program is younger, so an earlier date is wrong, and certificates would not be valid yet.
pub const EARLIEST: Date = Date(1_767_225_600 * NANOS_PER_SECOND);

/// 2046-01-01T00:00:00Z: this program is not run twenty years after it was written, so a later date is wrong, too. At such a
/// date every certificate has expired, and programs with 32-bit time have wrapped around to 1901 (in 2038).
pub const LATEST: Date = Date(EARLIEST.0 + 631_152_000 * NANOS_PER_SECOND);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A date, in nanoseconds since 1970-01-01T00:00:00Z without leap seconds; from 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(i64);

/// The difference of two dates, in nanoseconds: positive if a clock must be advanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(i64);

impl Date {
    /// The date `seconds` and `nanos` after 1970; `None` if that is out of range, or `nanos` is not less than a second.
    #[must_use]
    pub const fn from_parts(seconds: i64, nanos: i64) -> Option<Self> {
        if nanos < 0 || nanos >= NANOS_PER_SECOND {
            return None;
        }
        let Some(whole) = seconds.checked_mul(NANOS_PER_SECOND) else { return None };
        match whole.checked_add(nanos) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// Nanoseconds after [`Self::seconds`].
    #[must_use]
    pub const fn subsecond_nanos(self) -> i64 {
        self.0.rem_euclid(NANOS_PER_SECOND)
    }

    /// Whether it is between [`EARLIEST`] and [`LATEST`].
    #[must_use]
    pub fn is_plausible(self) -> bool {
        (EARLIEST..LATEST).contains(&self)
    }

    /// What must be added to `other` to get this date.
    #[must_use]
    pub const fn since(self, other: Self) -> Offset {
        Offset(self.0.saturating_sub(other.0))
    }

    /// The date that was this long before this one.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(earlier.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// This date, moved by `offset`.
    #[must_use]
    pub const fn plus(self, offset: Offset) -> Self {
        Self(self.0.saturating_add(offset.0))
    }

    /// The date in the middle between this one and `later`.
    #[must_use]
    pub const fn midpoint(self, later: Self) -> Self {
        Self(self.0.midpoint(later.0))
    }
}

impl Offset {
    /// An offset of so many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Its size without its sign.
    #[must_use]
    pub const fn magnitude(self) -> Duration {
        Duration::from_nanos(self.0.unsigned_abs())
    }

    /// The same, or if it is larger than `limit`, that much of it.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        let limit = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.clamp(limit.saturating_neg(), limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_less_than_a_second_of_nanoseconds() {
        let date = Date::from_parts(3, 999_999_999).unwrap();
        assert_eq!((date.seconds(), date.subsecond_nanos()), (3, 999_999_999));
        // Such as milliseconds since 1970 that were read as nanoseconds of a second.
        assert_eq!(Date::from_parts(0, 1_796_000_000_000), None);
        assert_eq!(Date::from_parts(0, -1), None);
        // And as seconds.
        assert_eq!(Date::from_parts(1_796_000_000_000, 0), None);
        let before = Date::from_parts(-1, 5).unwrap();
        assert_eq!((before.seconds(), before.subsecond_nanos()), (-1, 5));
    }

    #[test]
    fn a_date_before_this_program_or_long_after_it_is_implausible() {
        for (seconds, plausible) in [
            (0, false),
            (1_767_225_599, false),
            (1_767_225_600, true),
            (2_398_377_599, true),
            (2_398_377_600, false),
            (4_102_444_800, false),
            (-1, false),
        ] {
            assert_eq!(Date::from_parts(seconds, 0).unwrap().is_plausible(), plausible, "{seconds}");
        }
    }

    #[test]
    fn offsets_are_differences_of_dates() {
        let (early, late) = (Date::from_parts(5, 0).unwrap(), Date::from_parts(7, 500_000_000).unwrap());
        assert_eq!(late.since(early), Offset::from_nanos(2_500_000_000));
        assert_eq!(early.since(late).magnitude(), Duration::from_millis(2500));
        assert_eq!(early.plus(late.since(early)), late);
        assert_eq!(late.before(Duration::from_millis(2500)), early);
        assert_eq!(early.midpoint(late), Date::from_parts(6, 250_000_000).unwrap());
        assert_eq!(early.since(late).limited(Duration::from_secs(1)), Offset::from_nanos(-1_000_000_000));
    }
}
