//! The delay before a service is restarted.
//!
//! Invariant: the delay doubles with each restart and never exceeds the manifest's limit; up to a quarter of it is
//! subtracted at random, so that services that failed together do not restart together (the thundering herd of Marc
//! Brooker's "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use cloister_manifest::model::Restart;

/// The part of a pause that may be subtracted: one in this many.
const JITTER_PART: u64 = 4;

/// Doublings after which every `u64` of milliseconds is exhausted.
const MAX_DOUBLINGS: u32 = 63;

/// Random numbers for pauses: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014). Nothing secret depends on them.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// A sequence that depends on `seed` alone.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn up_to(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit.saturating_add(1)).unwrap_or_default()
    }
}

/// The first and the maximum pause after a start that failed for lack of resources, in milliseconds: another process
/// may exit soon, and a machine short of resources is not kept busy.
const REFUSED_MS: (u64, u64) = (100, 5_000);

/// Milliseconds to wait before restart number `streak` in a row, counted from 1.
pub(super) fn pause_ms(restart: &Restart, streak: u32, jitter: &mut Jitter) -> u64 {
    doubled_ms((restart.delay_ms, restart.max_delay_ms), streak, jitter)
}

/// The same after `count` consecutive starts that failed for lack of resources.
pub(super) fn refused_ms(count: u32, jitter: &mut Jitter) -> u64 {
    doubled_ms(REFUSED_MS, count, jitter)
}

fn doubled_ms((first, longest): (u64, u64), count: u32, jitter: &mut Jitter) -> u64 {
    let doublings = count.saturating_sub(1).min(MAX_DOUBLINGS);
    let pause = first.saturating_mul(1u64 << doublings).min(longest);
    pause.saturating_sub(jitter.up_to(pause / JITTER_PART))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_manifest::model::Policy;
    use proptest::prelude::*;

    fn restart(delay_ms: u64, max_delay_ms: u64) -> Restart {
        Restart { policy: Policy::Always, delay_ms, max_delay_ms, stable_ms: 0, burst: 5 }
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let mut jitter = Jitter::new(7);
        for (streak, longest) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (200, 1000)] {
            let pause = pause_ms(&restart(100, 1000), streak, &mut jitter);
            assert!(pause <= longest && pause >= longest * 3 / 4, "streak {streak}: {pause}");
        }
    }

    proptest! {
        #[test]
        fn no_pause_is_over_the_limit(delay: u64, limit: u64, streak: u32, seed: u64) {
            let pause = pause_ms(&restart(delay, limit), streak, &mut Jitter::new(seed));
            prop_assert!(pause <= limit);
        }
    }
}
