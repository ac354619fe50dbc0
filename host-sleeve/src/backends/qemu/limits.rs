//! Time limits of QEMU's machines.
//!
//! Invariant: an emulated machine on a busy host is slow, and must not be mistaken for one that hangs.

use std::time::Duration;

use crate::backends::contract::MachineLimits;

/// The host's memory and swap space in bytes: Linux refuses to map more (`vm.overcommit_memory`,
/// Documentation/mm/overcommit-accounting.rst).
pub(super) fn max_memory() -> u64 {
    let host = rustix::system::sysinfo();
    let units = host.totalram.saturating_add(host.totalswap);
    units.saturating_mul(u64::from(host.mem_unit))
}

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
