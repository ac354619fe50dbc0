//! Stage `entropy`: random bits that the host does not know, before anything asks for some.
//!
//! Its law: it passes only when the kernel's generator holds bits from inside the trust boundary, and answers. What counts
//! as inside depends on the platform, and a host's device never does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cloister_nsm::{Module, NsmError};
use cloister_sys::entropy::{self, EntropyError};
use cloister_sys::nsm::Nsm;
use cloister_sys::platform::Platform;

use super::{Boot, BootError};

/// The kernel's present hardware generator (`Documentation/admin-guide/hw_random.rst`).
const CURRENT: &str = "/sys/class/misc/hw_random/rng_current";

/// How many bits of each 1024 of it are credited; 0 switches it off.
const QUALITY: &str = "/sys/class/misc/hw_random/rng_quality";

/// What the NSM's driver calls itself there (`drivers/misc/nsm.c`).
const NSM: &str = "nsm-hwrng";

/// Bytes of the NSM's answer: it gives as many each time (`GetRandom` of aws-nitro-enclaves-nsm-api; the same in QEMU's
/// `virtio-nsm.c`). Fewer are not what is credited for.
const NSM_BYTES: usize = 256;

/// `getrandom` must answer by then. With credited bits it answers at once; the limit is for a kernel that lost them.
const LIMIT: Duration = Duration::from_secs(5);

/// Seeds the kernel's generator and waits for it.
pub fn seed(boot: &mut Boot) -> Result<String, BootError> {
    let platform = boot.platform.unwrap_or(Platform::Virtual);
    let current = fs::read_to_string(CURRENT).unwrap_or_default();
    admit(platform, current.trim())?;
    let mut sources = Vec::new();
    if platform == Platform::Nitro {
        mix_in_nsm()?;
        sources.push(NSM);
    } else {
        silence(current.trim())?;
    }
    match entropy::from_processor() {
        Ok((source, words)) => {
            entropy::credit(&words).map_err(BootError::Entropy)?;
            sources.push(source.name());
        }
        // The NSM is enough. A development machine may have an old processor, and has the kernel's own noise.
        Err(EntropyError::NoInstruction) if matches!(platform, Platform::Nitro | Platform::Virtual) => {}
        Err(error) => return Err(BootError::Entropy(error)),
    }
    entropy::await_ready(LIMIT).map_err(BootError::Entropy)?;
    Ok(sources.join(", "))
}

/// On Nitro the kernel's hardware generator must be the NSM; elsewhere it is nothing that counts.
fn admit(platform: Platform, current: &str) -> Result<(), BootError> {
    if platform == Platform::Nitro && current != NSM {
        return Err(BootError::Generator(current.to_owned()));
    }
    Ok(())
}

/// The driver feeds the kernel in its own time; asked directly, the module seeds it before anything starts.
fn mix_in_nsm() -> Result<(), BootError> {
    let nsm = Nsm::open(Path::new("/")).map_err(|error| BootError::Path("/dev/nsm", error))?;
    let module = Module::over(|request| nsm.exchange(request));
    let words = tested(&module.random().map_err(BootError::Nsm)?)?;
    entropy::credit(&words).map_err(BootError::Entropy)
}

/// The words of a whole answer of the NSM that passed the health tests.
fn tested(random: &[u8]) -> Result<Vec<u64>, BootError> {
    let Some(random) = random.get(..NSM_BYTES) else {
        let short = format!("{} random bytes, {NSM_BYTES} are an answer", random.len());
        return Err(BootError::Nsm(NsmError::Answer(short)));
    };
    let words: Vec<u64> =
        random.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_ne_bytes).collect();
    entropy::check(&words).map_err(|fault| BootError::Entropy(EntropyError::UnhealthyDevice(NSM, fault)))?;
    Ok(words)
}

/// A generator that belongs to the host, such as virtio-rng, is credited nothing from here on.
fn silence(current: &str) -> Result<(), BootError> {
    if current.is_empty() || current == "none" || !Path::new(QUALITY).exists() {
        return Ok(());
    }
    fs::write(QUALITY, "0").map_err(|error| BootError::Path(QUALITY, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nitro_without_the_nsm_as_generator_does_not_boot() {
        assert!(matches!(admit(Platform::Nitro, "virtio_rng.0"), Err(BootError::Generator(_))));
        assert!(matches!(admit(Platform::Nitro, ""), Err(BootError::Generator(_))));
        assert!(admit(Platform::Nitro, "nsm-hwrng").is_ok());
    }

    #[test]
    fn elsewhere_the_generator_does_not_matter() {
        assert!(admit(Platform::Virtual, "virtio_rng.0").is_ok());
        assert!(admit(Platform::Tdx, "").is_ok());
    }

    #[test]
    fn nothing_is_credited_for_less_than_a_whole_answer() {
        let answer: Vec<u8> = (0..=255).collect();
        assert_eq!(tested(&answer).unwrap().len(), 32);
        for length in [0, 8, 255] {
            let error = cloister_wire::causes::line(&tested(&answer[..length]).unwrap_err());
            assert!(error.contains(&format!("{length} random bytes, 256 are an answer")), "{error}");
        }
        assert!(matches!(tested(&[7; NSM_BYTES]), Err(BootError::Entropy(_))));
    }
}
