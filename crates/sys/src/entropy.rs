//! Random bits from the processor for the kernel's random generator, tested before they are used.
//!
//! Invariant: only bits from hardware inside the trust boundary that passed the health tests are credited. Bits from
//! the host are never read here. Init's entropy stage chooses the source for each platform.
//!
//! The tests are the two of NIST SP 800-90B, section 4.4, with a false alarm once in 2^30 runs.

#![expect(unsafe_code, reason = "the processor's instructions and RNDADDENTROPY have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::rand::GetRandomFlags;

/// Number of 64-bit words read from the processor: as bytes, one window of the adaptive proportion test (512 samples
/// for non-binary samples, section 4.4.2).
pub const WORDS: usize = 64;

/// Bits credited for [`WORDS`] words: the number that the kernel's generator needs to be ready (`POOL_READY_BITS`,
/// `drivers/char/random.c`), a sixteenth of the bits read.
const CREDITED_BITS: u32 = 256;

/// Maximum number of attempts of an instruction. Intel's guide recommends 10 for RDRAND and more for RDSEED, which
/// fails when all cores use it ("Digital Random Number Generator Software Implementation Guide", 5.2 and 5.3).
const TRIES: u32 = 1000;

/// The number of occurrences of one byte value among 512 samples at which the test fails: 1 + the critical binomial
/// value for 4 bits of entropy per byte and a false alarm rate of 2^-30.
const PROPORTION_CUTOFF: usize = 71;

/// The instruction that returns random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// RDSEED: conditioned samples of a noise source.
    RdSeed,
    /// RDRAND: a generator seeded from that source.
    RdRand,
}

impl Source {
    /// Its instruction's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RdSeed => "RDSEED",
            Self::RdRand => "RDRAND",
        }
    }
}

/// Why no random bits are available.
#[derive(Debug)]
pub enum EntropyError {
    /// The processor supports neither instruction.
    NoInstruction,
    /// The instruction kept failing.
    Dry(Source),
    /// The bits failed a health test.
    Unhealthy(Source, HealthFailure),
    /// The bits of the device with this name failed a health test.
    UnhealthyDevice(&'static str, HealthFailure),
    /// A system call failed.
    Kernel(io::Error),
    /// The kernel's generator was not ready in time.
    NotReady(Duration),
}

/// The health test that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthFailure {
    /// A word occurred twice in a row (repetition count test, section 4.4.1).
    Repetition,
    /// A byte value occurred too often (adaptive proportion test, section 4.4.2).
    Proportion,
}

impl std::fmt::Display for EntropyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoInstruction => f.write_str("this processor has neither RDSEED nor RDRAND"),
            Self::Dry(source) => write!(f, "{} failed {TRIES} times in a row", source.name()),
            Self::Unhealthy(source, failure) => write!(f, "{} {failure}", source.name()),
            Self::UnhealthyDevice(name, failure) => write!(f, "{name} {failure}"),
            Self::Kernel(error) => write!(f, "the kernel's random generator: {error}"),
            Self::NotReady(limit) => {
                write!(f, "the kernel's random generator was not ready within {} ms", limit.as_millis())
            }
        }
    }
}

impl std::fmt::Display for HealthFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repetition => "returned the same word twice in a row: it is stuck",
            Self::Proportion => "returned one byte value too often: it is biased",
        })
    }
}

impl std::error::Error for EntropyError {}

/// Reads [`WORDS`] words from the best available instruction and tests them.
pub fn from_processor() -> Result<(Source, Vec<u64>), EntropyError> {
    let (source, draw) = instruction().ok_or(EntropyError::NoInstruction)?;
    let words = (0..WORDS)
        .map(|_| (0..TRIES).find_map(|_| draw()).ok_or(EntropyError::Dry(source)))
        .collect::<Result<Vec<u64>, _>>()?;
    check(&words).map_err(|failure| EntropyError::Unhealthy(source, failure))?;
    Ok((source, words))
}

/// Mixes up to [`WORDS`] words into the kernel's generator, credits them, and makes it reseed immediately.
pub fn credit(words: &[u64]) -> Result<(), EntropyError> {
    add(words, CREDITED_BITS).map_err(EntropyError::Kernel)
}

/// Waits at most `limit` until the kernel's generator is ready.
pub fn await_ready(limit: Duration) -> Result<(), EntropyError> {
    let start = Instant::now();
    let ready = File::open("/dev/random").map_err(EntropyError::Kernel)?;
    let mut bytes = [0u8; 32];
    loop {
        match rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(EntropyError::Kernel(error.into())),
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(EntropyError::NotReady(limit));
        }
        let timeout = Timespec::try_from(left).ok();
        rustix::event::poll(&mut [PollFd::new(&ready, PollFlags::IN)], timeout.as_ref())
            .map_err(|error| EntropyError::Kernel(error.into()))?;
    }
}

/// Runs the two health tests on at most [`WORDS`] words. Two equal 64-bit words in a row are a false alarm once in
/// 2^64, so a repetition count over 1 fails the test.
pub fn check(words: &[u64]) -> Result<(), HealthFailure> {
    if words.iter().zip(words.iter().skip(1)).any(|(one, next)| one == next) {
        return Err(HealthFailure::Repetition);
    }
    let mut counts = [0usize; 256];
    for byte in words.iter().flat_map(|word| word.to_ne_bytes()) {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count = count.saturating_add(1);
        }
    }
    if counts.iter().any(|count| *count >= PROPORTION_CUTOFF) {
        Err(HealthFailure::Proportion)
    } else {
        Ok(())
    }
}

/// `struct rand_pool_info` of `linux/random.h` with space for [`WORDS`] words.
#[repr(C)]
struct PoolInfo {
    entropy_count: i32,
    buf_size: i32,
    words: [u64; WORDS],
}

/// `RNDADDENTROPY`, `_IOW('R', 3, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// `RNDRESEEDCRNG`, `_IO('R', 7)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

fn add(words: &[u64], bits: u32) -> io::Result<()> {
    let mut info = PoolInfo {
        entropy_count: i32::try_from(bits).map_err(io::Error::other)?,
        buf_size: i32::try_from(words.len().min(WORDS).saturating_mul(8)).map_err(io::Error::other)?,
        words: [0; WORDS],
    };
    for (to, from) in info.words.iter_mut().zip(words) {
        *to = *from;
    }
    let device = File::options().write(true).open("/dev/random")?;
    let fd = device.as_raw_fd();
    // SAFETY: `info` is live, and its buffer holds the `buf_size` bytes it announces; the kernel only reads it.
    done(unsafe { libc::ioctl(fd, RNDADDENTROPY, &raw const info) })?;
    // SAFETY: this request takes no argument.
    done(unsafe { libc::ioctl(fd, RNDRESEEDCRNG) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

type Draw = fn() -> Option<u64>;

#[cfg(target_arch = "x86_64")]
fn instruction() -> Option<(Source, Draw)> {
    if std::arch::is_x86_feature_detected!("rdseed") {
        return Some((Source::RdSeed, rdseed));
    }
    std::arch::is_x86_feature_detected!("rdrand").then_some((Source::RdRand, rdrand))
}

#[cfg(target_arch = "x86_64")]
fn rdseed() -> Option<u64> {
    let mut word = 0;
    // SAFETY: only `instruction` returns this function, after it detected the feature.
    let ok = unsafe { std::arch::x86_64::_rdseed64_step(&mut word) };
    (ok == 1).then_some(word)
}

#[cfg(target_arch = "x86_64")]
fn rdrand() -> Option<u64> {
    let mut word = 0;
    // SAFETY: only `instruction` returns this function, after it detected the feature.
    let ok = unsafe { std::arch::x86_64::_rdrand64_step(&mut word) };
    (ok == 1).then_some(word)
}

/// Enclaves on other processors use a device: the NSM on Nitro.
#[cfg(not(target_arch = "x86_64"))]
fn instruction() -> Option<(Source, Draw)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of a generator that passes the tests: splitmix64.
    fn plausible(seed: u64) -> Vec<u64> {
        (0..64u64)
            .map(|i| {
                let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                z ^ (z >> 31)
            })
            .collect()
    }

    #[test]
    fn bits_that_look_random_pass() {
        for seed in 0..1000 {
            assert_eq!(check(&plausible(seed)), Ok(()));
        }
    }

    #[test]
    fn a_generator_that_repeats_a_word_is_stuck() {
        assert_eq!(check(&[u64::MAX; WORDS]), Err(HealthFailure::Repetition));
        let mut words = plausible(1);
        words[40] = words[39];
        assert_eq!(check(&words), Err(HealthFailure::Repetition));
    }

    #[test]
    fn a_generator_that_counts_is_biased() {
        let words: Vec<u64> = (0..64).collect();
        assert_eq!(check(&words), Err(HealthFailure::Proportion));
    }

    #[test]
    fn this_processor_passes_the_tests_or_has_no_instruction() {
        match from_processor() {
            Ok((_, words)) => assert_eq!(words.len(), WORDS),
            Err(error) => assert!(matches!(error, EntropyError::NoInstruction), "{error}"),
        }
    }

    #[test]
    fn the_generator_of_a_running_kernel_is_ready() {
        await_ready(Duration::ZERO).unwrap();
    }
}
