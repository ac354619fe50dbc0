//! Stage `clock`: which clock the kernel runs on, and whether the date can be true.
//!
//! Its law: it looks and tells, and never takes a time from the host. Bounded, checked time is a service of the supervisor.

use std::fs;

use cloister_sys::platform::Platform;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{BootError, Machine};

/// The clock source in use (`Documentation/ABI/testing/sysfs-devices-clocksource`).
const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// 2026-01-01T00:00:00Z: this program is younger, so an earlier date is wrong, and certificates would look unborn.
const EARLIEST: i64 = 1_767_225_600;

/// Names the clock source, says where it is not the one the platform should have, and lifts a date that cannot be.
pub fn check(machine: &mut Machine) -> Result<String, BootError> {
    let source = fs::read_to_string(CURRENT).map_err(|error| BootError::Path(CURRENT, error))?;
    let source = source.trim();
    let mut found = source.to_owned();
    if let Some(better) = machine.platform.and_then(wanted).filter(|better| *better != source) {
        found = format!("{source}, expected {better}");
    }
    if clock_gettime(ClockId::Realtime).tv_sec < EARLIEST {
        clock_settime(ClockId::Realtime, Timespec { tv_sec: EARLIEST, tv_nsec: 0 })
            .map_err(|error| BootError::Kernel("setting the date", error.into()))?;
        found.push_str(", no date");
    }
    Ok(found)
}

/// The source whose rate the host cannot bend, or the one the platform documents.
const fn wanted(platform: Platform) -> Option<&'static str> {
    match platform {
        Platform::Nitro => Some("kvm-clock"),
        Platform::Tdx | Platform::SevSnp => Some("tsc"),
        Platform::Virtual => None,
    }
}
