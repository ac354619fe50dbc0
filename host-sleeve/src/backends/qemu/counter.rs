//! Kernel arguments about the counter of an emulated guest.
//!
//! Invariant: only what a guest cannot determine itself on a busy host, and only its clock relies on it.

/// `CONFIG_HZ` of the kernel (kernel-config/base.config).
const TICKS_PER_SECOND: u64 = 250;

/// The counter's frequency, as arguments of the kernel. Under TCG the guest's counter is the host's: if it is measured in the
/// guest against an emulated timer on a busy machine, the result is wrong, and the guest falls back to a clock of 4 ms ticks.
/// `lpj` is the same frequency for delays, in loops per tick; without it the kernel measures it for its second processor,
/// which takes 0.2 s (`init/calibrate.c`).
pub(super) fn arguments(khz: u32) -> String {
    let loops = u64::from(khz).saturating_mul(1000) / TICKS_PER_SECOND;
    format!("tsc_early_khz={khz} lpj={loops}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_counted_in_ticks() {
        assert_eq!(arguments(2_400_000), "tsc_early_khz=2400000 lpj=9600000");
    }
}
