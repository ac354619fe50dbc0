//! Stage `clock`: checks the clock source and whether the date is plausible.
//!
//! Invariant: it never takes a time from the host. Bounded, checked time is a service of the supervisor.

use std::fs;

use cloister_sys::platform::Platform;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Boot, BootError};

/// The clock source in use (`Documentation/ABI/testing/sysfs-devices-clocksource`).
const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// 2026-01-01T00:00:00Z: this program is younger, so an earlier date is wrong, and certificates would not be valid yet.
const EARLIEST: i64 = 1_767_225_600;

/// 2046-01-01T00:00:00Z: this program is not run twenty years after it was written, so a later date is wrong, too. At such a
/// date every certificate has expired, and programs with 32-bit time have wrapped around to 1901 (in 2038).
const LATEST: i64 = EARLIEST + 631_152_000;

/// Returns the clock source and, if it differs, the one the platform should have. Replaces an implausible date with the
/// earliest plausible one: if the host is that wrong, its date is no basis for a correction.
pub fn check(boot: &mut Boot) -> Result<String, BootError> {
    let source = fs::read_to_string(CURRENT).map_err(|error| BootError::Path(CURRENT, error))?;
    let source = source.trim();
    let mut found = source.to_owned();
    if let Some(better) = boot.platform.and_then(wanted).filter(|better| *better != source) {
        found = format!("{source}, expected {better}");
    }
    if !is_plausible(clock_gettime(ClockId::Realtime).tv_sec) {
        clock_settime(ClockId::Realtime, Timespec { tv_sec: EARLIEST, tv_nsec: 0 })
            .map_err(|error| BootError::Kernel("cannot set the date", error.into()))?;
        found.push_str(", date reset");
    }
    Ok(found)
}

/// Whether a date, in seconds since 1970, is plausible.
fn is_plausible(seconds: i64) -> bool {
    (EARLIEST..LATEST).contains(&seconds)
}

/// The source whose rate the host cannot change, or the one that the platform documents.
const fn wanted(platform: Platform) -> Option<&'static str> {
    match platform {
        Platform::Nitro => Some("kvm-clock"),
        Platform::Tdx | Platform::Snp => Some("tsc"),
        Platform::Virtual => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_before_this_program_or_long_after_it_is_implausible() {
        for (seconds, plausible) in [
            (0, false),
            (EARLIEST - 1, false),
            (EARLIEST, true),
            (2_398_377_599, true),
            (2_398_377_600, false),
            (4_102_444_800, false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(is_plausible(seconds), plausible, "{seconds}");
        }
    }
}
