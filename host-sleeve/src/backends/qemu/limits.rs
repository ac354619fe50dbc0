//! How long QEMU's machines may take.
//!
//! Its law: a translated machine on a busy host is slow, and is not taken for one that hangs.

use std::time::Duration;

use crate::backends::contract::MachineLimits;

/// The limits, for every machine that QEMU makes.
pub(super) const LIMITS: MachineLimits = MachineLimits {
    // A translated boot takes some seconds, and several times that on a host with more work than processors.
    boot: Duration::from_mins(1),
    // The guest's last steps and QEMU's own exit, which wait for processors like everything else.
    power_off: Duration::from_secs(10),
    // The host's kernel ends killed programs, and gives back their memory first.
    kill: Duration::from_secs(10),
    // What is left then is the vsock device, a small program.
    destroy: Duration::from_secs(5),
};
