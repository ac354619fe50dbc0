//! The boot's entropy stage: the kernel's generator is seeded from hardware this machine can trust, or the boot ends.
//!
//! Its law: what the host can supply is never credited. On Nitro the hardware is the Nitro Security Module, and the
//! kernel must be using it; elsewhere it is the CPU's own generator, read with retries and health-tested here
//! (NIST SP 800-90B, section 4.4) before a bit of it is credited. Last, `getrandom` must answer within a limit.

#![expect(unsafe_code, reason = "the CPU's generator is an instruction, crediting entropy an ioctl")]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::platform::Platform;

/// How long `getrandom` may take after seeding: it is immediate on a healthy machine, and nothing here is worth a hang.
pub const GETRANDOM_LIMIT: Duration = Duration::from_secs(2);

/// The kernel's name for the Nitro Security Module's generator (`drivers/misc/nsm.c`).
pub const NSM_RNG: &str = "nsm-hwrng";

/// Where the kernel says which hardware generator feeds it (`Documentation/admin-guide/hw_random.rst`).
const CURRENT_RNG: &str = "sys/class/misc/hw_random/rng_current";

/// Words of 64 bits taken for the health test: eight windows of [`WINDOW`] bytes.
const SAMPLE_WORDS: usize = 512;

/// Bytes in a window of the adaptive proportion test for samples that are not binary (SP 800-90B, 4.4.2).
const WINDOW: usize = 512;

/// Occurrences of one byte in a window that fail the adaptive proportion test: 1 + CRITBINOM(512, 1/2, 1 − 2^-20), for
/// an assumed entropy of only one bit a byte and a false alarm in a million (SP 800-90B, 4.4.2).
const PROPORTION_CUTOFF: usize = 311;

/// Equal bytes in a row that fail the repetition count test: 1 + 20 / 1, for the same assumptions (SP 800-90B, 4.4.1).
const REPETITION_CUTOFF: usize = 21;

/// Tries for one word. Intel asks for 10 for RDRAND, and for more with pauses for RDSEED, which drains under load
/// (Intel DRNG software implementation guide, 5.2.1 and 5.3.1).
const TRIES: u32 = 1000;

/// Bits credited for each byte that passed: half of what it holds, for RDRAND's output is stretched from a seed
/// (SP 800-90A).
const CREDIT_PER_BYTE: usize = 4;

/// Bytes mixed in with one call: `rand_pool_info` has no fixed size, this is ours. Twice the generator's own 256 bits.
const MIX_BYTES: usize = 64;

/// What the stage found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where the entropy came from: `nsm-hwrng`, `rdseed`, `rdrand`, or `kernel` where the CPU has neither.
    pub source: &'static str,
    /// Bits credited by us.
    pub credited: usize,
}

/// Why the boot must end here.
#[derive(Debug)]
pub enum EntropyError {
    /// On Nitro, another generator than the module's feeds the kernel.
    WrongSource {
        /// What `rng_current` says.
        current: String,
    },
    /// The CPU's generator gave nothing in [`TRIES`] tries.
    Exhausted,
    /// The CPU's generator failed a health test.
    Unhealthy(&'static str),
    /// `getrandom` did not answer in time.
    TooSlow,
    /// The kernel refused a step.
    System(&'static str, io::Error),
}

/// Runs the stage for this platform on the machine whose root directory is `root`.
pub fn seed(platform: Platform, root: &Path) -> Result<Report, EntropyError> {
    let report = if platform == Platform::Nitro {
        check_current_rng(root)?;
        Report { source: NSM_RNG, credited: 0 }
    } else {
        seed_from_cpu(root)?
    };
    getrandom_answers(root)?;
    Ok(report)
}

fn check_current_rng(root: &Path) -> Result<(), EntropyError> {
    let current = fs::read_to_string(root.join(CURRENT_RNG))
        .map_err(|error| EntropyError::System("reading which hardware generator is used", error))?;
    if current.trim() == NSM_RNG {
        Ok(())
    } else {
        Err(EntropyError::WrongSource { current: current.trim().to_owned() })
    }
}

fn seed_from_cpu(root: &Path) -> Result<Report, EntropyError> {
    let Some((source, word)) = cpu_source() else {
        return Ok(Report { source: "kernel", credited: 0 });
    };
    let mut sample = Vec::with_capacity(SAMPLE_WORDS.saturating_mul(8));
    for _ in 0..SAMPLE_WORDS {
        let word = (0..TRIES).find_map(|_| word()).ok_or(EntropyError::Exhausted)?;
        sample.extend_from_slice(&word.to_ne_bytes());
    }
    healthy(&sample)?;
    let pool = File::options()
        .write(true)
        .open(root.join("dev/random"))
        .map_err(|error| EntropyError::System("opening /dev/random", error))?;
    let mut credited = 0usize;
    for piece in sample.as_chunks::<MIX_BYTES>().0 {
        credit(&pool, piece).map_err(|error| EntropyError::System("crediting entropy", error))?;
        credited = credited.saturating_add(MIX_BYTES.saturating_mul(CREDIT_PER_BYTE));
    }
    Ok(Report { source, credited })
}

/// The health tests of SP 800-90B, 4.4, over the whole sample, and the fault that real CPUs have had: one word for ever.
fn healthy(sample: &[u8]) -> Result<(), EntropyError> {
    let words = sample.as_chunks::<8>().0;
    if words.iter().zip(words.iter().skip(1)).any(|(one, next)| one == next) {
        return Err(EntropyError::Unhealthy("it repeated a 64-bit word"));
    }
    let mut run = 0usize;
    let mut last = None;
    for byte in sample {
        run = if last == Some(byte) { run.saturating_add(1) } else { 1 };
        last = Some(byte);
        if run >= REPETITION_CUTOFF {
            return Err(EntropyError::Unhealthy("it repeated a byte (SP 800-90B, 4.4.1)"));
        }
    }
    for window in sample.as_chunks::<WINDOW>().0 {
        let first = window.first();
        if window.iter().filter(|byte| Some(*byte) == first).count() >= PROPORTION_CUTOFF {
            return Err(EntropyError::Unhealthy("one byte came too often (SP 800-90B, 4.4.2)"));
        }
    }
    Ok(())
}

/// `struct rand_pool_info` of `linux/random.h`, with room for one piece.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; MIX_BYTES],
}

/// `RNDADDENTROPY`: `_IOW('R', 0x03, int[2])`.
const ADD_ENTROPY: Opcode = rustix::ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);

fn credit(pool: &File, piece: &[u8; MIX_BYTES]) -> io::Result<()> {
    let entropy_bits = i32::try_from(MIX_BYTES.saturating_mul(CREDIT_PER_BYTE)).map_err(io::Error::other)?;
    let bytes = i32::try_from(MIX_BYTES).map_err(io::Error::other)?;
    // SAFETY: RNDADDENTROPY (random(4)) reads a rand_pool_info and `bytes` bytes behind it, which PoolInfo holds.
    let add =
        unsafe { Setter::<ADD_ENTROPY, PoolInfo>::new(PoolInfo { entropy_bits, bytes, buffer: *piece }) };
    // SAFETY: the request is made for exactly this number, above.
    unsafe { ioctl(pool, add) }?;
    Ok(())
}

/// Whether the generator is seeded and answers within [`GETRANDOM_LIMIT`]. Only `/dev/random` can be polled for that.
fn getrandom_answers(root: &Path) -> Result<(), EntropyError> {
    let random = File::open(root.join("dev/random"))
        .map_err(|error| EntropyError::System("opening /dev/random", error))?;
    let limit = Timespec { tv_sec: GETRANDOM_LIMIT.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
    poll(&mut [PollFd::new(&random, PollFlags::IN)], Some(&limit))
        .map_err(|error| EntropyError::System("waiting for getrandom", error.into()))?;
    let mut bytes = [0u8; 32];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::AGAIN) => Err(EntropyError::TooSlow),
        Err(error) => Err(EntropyError::System("getrandom", error.into())),
    }
}

type Source = (&'static str, fn() -> Option<u64>);

#[cfg(target_arch = "x86_64")]
fn cpu_source() -> Option<Source> {
    if std::arch::is_x86_feature_detected!("rdseed") {
        Some(("rdseed", rdseed))
    } else if std::arch::is_x86_feature_detected!("rdrand") {
        Some(("rdrand", rdrand))
    } else {
        None
    }
}

/// The 64-bit ARM instructions are optional and not stable in Rust; Graviton's enclaves have the security module.
#[cfg(not(target_arch = "x86_64"))]
fn cpu_source() -> Option<Source> {
    None
}

#[cfg(target_arch = "x86_64")]
fn rdseed() -> Option<u64> {
    #[target_feature(enable = "rdseed")]
    fn step() -> Option<u64> {
        let mut word = 0;
        let got = std::arch::x86_64::_rdseed64_step(&mut word);
        (got == 1).then_some(word)
    }
    // SAFETY: `cpu_source` hands this function out only where the CPU has the instruction.
    unsafe { step() }
}

#[cfg(target_arch = "x86_64")]
fn rdrand() -> Option<u64> {
    #[target_feature(enable = "rdrand")]
    fn step() -> Option<u64> {
        let mut word = 0;
        let got = std::arch::x86_64::_rdrand64_step(&mut word);
        (got == 1).then_some(word)
    }
    // SAFETY: `cpu_source` hands this function out only where the CPU has the instruction.
    unsafe { step() }
}

impl std::fmt::Display for EntropyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongSource { current } => {
                write!(f, "the kernel's hardware generator is {current:?}, not {NSM_RNG}")
            }
            Self::Exhausted => write!(f, "the CPU's generator gave no word in {TRIES} tries"),
            Self::Unhealthy(how) => write!(f, "the CPU's generator failed its health test: {how}"),
            Self::TooSlow => write!(f, "getrandom did not answer within {GETRANDOM_LIMIT:?}"),
            Self::System(step, error) => write!(f, "{step}: {error}"),
        }
    }
}

impl std::error::Error for EntropyError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a linear congruential generator: not random, but even enough for the tests.
    fn even_bytes() -> Vec<u8> {
        let mut state = 1u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..SAMPLE_WORDS * 8).map(step).collect()
    }

    #[test]
    fn an_even_sample_is_healthy() {
        assert!(healthy(&even_bytes()).is_ok());
    }

    #[test]
    fn a_generator_stuck_at_one_word_is_refused() {
        assert!(matches!(healthy(&[0xff; 4096]), Err(EntropyError::Unhealthy(_))));
    }

    #[test]
    fn a_run_of_one_byte_is_refused() {
        let mut sample = even_bytes();
        // Not aligned to words, so that only the run shows.
        sample[3..3 + REPETITION_CUTOFF].fill(7);
        assert!(matches!(healthy(&sample), Err(EntropyError::Unhealthy(_))));
    }

    #[test]
    fn one_byte_that_comes_too_often_is_refused() {
        let mut sample = even_bytes();
        for index in (0..WINDOW).filter(|index| index % 5 != 3) {
            sample[index] = 9;
        }
        assert!(matches!(healthy(&sample), Err(EntropyError::Unhealthy(how)) if how.contains("too often")));
    }

    #[test]
    fn this_machines_generator_gives_words_that_are_healthy() {
        if let Some((_, word)) = cpu_source() {
            let sample: Vec<u8> = (0..SAMPLE_WORDS)
                .map(|_| (0..TRIES).find_map(|_| word()).unwrap())
                .flat_map(u64::to_ne_bytes)
                .collect();
            healthy(&sample).unwrap();
        }
    }

    #[test]
    fn another_generator_than_the_modules_is_named() {
        let root = tempfile::tempdir().unwrap();
        let rng = root.path().join(CURRENT_RNG);
        fs::create_dir_all(rng.parent().unwrap()).unwrap();
        fs::write(&rng, "virtio_rng.0\n").unwrap();
        let error = check_current_rng(root.path()).unwrap_err();
        assert_eq!(error.to_string(), "the kernel's hardware generator is \"virtio_rng.0\", not nsm-hwrng");
        fs::write(&rng, "nsm-hwrng\n").unwrap();
        assert!(check_current_rng(root.path()).is_ok());
    }

    #[test]
    fn getrandom_answers_on_a_machine_that_has_booted() {
        assert!(getrandom_answers(Path::new("/")).is_ok());
    }
}
