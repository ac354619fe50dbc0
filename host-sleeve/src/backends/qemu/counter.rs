//! What a translated guest is told of its counter.
//!
//! Its law: only what a guest cannot find out itself on a busy host, and nothing of it is trusted by more than its clock.

/// `CONFIG_HZ` of the kernel (kernel-config/base.config).
const TICKS_PER_SECOND: u64 = 250;

/// The counter's speed, as words of the kernel's command line. Under translation the guest's counter is the host's:
/// measured in the guest against an emulated timer, on a busy machine, its speed comes out wrong, and the guest falls back
/// to a clock of 4 ms ticks. `lpj` is the same speed for delays, in loops per tick; without it the kernel measures it for
/// its second processor, which takes 0.2 s (`init/calibrate.c`).
pub(super) fn words(khz: u32) -> String {
    let loops = u64::from(khz).saturating_mul(1000) / TICKS_PER_SECOND;
    format!("tsc_early_khz={khz} lpj={loops}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_counted_in_ticks() {
        assert_eq!(words(2_400_000), "tsc_early_khz=2400000 lpj=9600000");
    }
}
