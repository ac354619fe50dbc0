//! How long QEMU's machines may take.
//!
//! Its law: a translated machine on a busy host is slow, and is not taken for one that hangs.

use std::time::Duration;

use crate::backends::contract::MachineLimits;

/// The limits, for every machine that QEMU makes.
pub(super) const LIMITS: MachineLimits = MachineLimits {
    // A translated boot takes some seconds, on a host with ten times as much work as processors most of a minute.
    boot: Duration::from_mins(1),
    // The kernel's last steps and QEMU's own exit: milliseconds, on a busy host a few seconds.
    power_off: Duration::from_secs(10),
    // The kernel gives back gigabytes of a killed process's memory; on a disk that swaps that takes seconds.
    kill: Duration::from_secs(10),
    // The second of two programs, after the first has ended.
    destroy: Duration::from_secs(5),
};
