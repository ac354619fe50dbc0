//! Time limits of QEMU's machines.
//!
//! Invariant: an emulated machine on a busy host is slow, and must not be mistaken for one that hangs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::backends::contract::MachineLimits;

/// How Linux decides whether memory may be mapped (Documentation/admin-guide/sysctl/vm.rst).
const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// The value with which everything may be mapped.
const ALWAYS: &str = "1";

/// The maximum memory of a machine in bytes: the host's memory and swap space, unless the host maps any amount.
pub(super) fn max_memory() -> u64 {
    max_memory_under(Path::new(OVERCOMMIT))
}

/// By default Linux refuses to map more than memory and swap space at once, and with a strict limit usually less
/// (`__vm_enough_memory`, mm/util.c). A setting that cannot be read is the default.
fn max_memory_under(overcommit: &Path) -> u64 {
    if fs::read_to_string(overcommit).is_ok_and(|setting| setting.trim() == ALWAYS) {
        return u64::MAX;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_unless_the_host_maps_any_amount() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overcommit_memory");
        let under = |setting: &str| {
            fs::write(&path, setting).unwrap();
            max_memory_under(&path)
        };
        let limited = 64 << 20..1 << 60;
        assert_eq!(under("1\n"), u64::MAX);
        assert!(limited.contains(&under("0\n")) && limited.contains(&under("2\n")));
        assert!(limited.contains(&max_memory_under(&dir.path().join("missing"))));
    }
}
