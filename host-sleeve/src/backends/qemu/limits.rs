//! Time limits of QEMU's machines.
//!
//! Invariant: an emulated machine on a busy host is slow, and must not be mistaken for one that hangs.

use std::time::Duration;

use crate::backends::contract::MachineLimits;

/// The limits, for all of QEMU's machine types.
pub(super) const LIMITS: MachineLimits = MachineLimits {
    // A boot under TCG takes some seconds, and several times that on a host with more work than processors.
    boot: Duration::from_mins(1),
    // For the guest's last steps and QEMU's exit, which wait for a free processor like everything else.
    power_off: Duration::from_secs(10),
    // The host's kernel frees the memory of killed programs before they are gone.
    kill: Duration::from_secs(10),
    // Only the vsock device, a small program, is left then.
    destroy: Duration::from_secs(5),
};
