//! Stage `entropy`: seeds the kernel's generator with random bits that the host does not know, before anything uses them.
//!
//! Invariant: it succeeds only if the kernel's generator holds bits from inside the trust boundary, and `getrandom` responds.
//! What counts as inside depends on the platform; a device of the host never does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cloister_nsm::{Module, NsmError};
use cloister_sys::entropy::{self, EntropyError};
use cloister_sys::nsm::Nsm;
use cloister_sys::platform::Platform;

use super::{Boot, BootError};

/// The kernel's current hardware generator (`Documentation/admin-guide/hw_random.rst`).
const CURRENT: &str = "/sys/class/misc/hw_random/rng_current";

/// How many of every 1024 of its bits are credited; 0 disables it.
const QUALITY: &str = "/sys/class/misc/hw_random/rng_quality";

/// The NSM driver's name there (`drivers/misc/nsm.c`).
const NSM: &str = "nsm-hwrng";

/// Bytes of a complete NSM response, always the same number (`GetRandom` of aws-nitro-enclaves-nsm-api; the same in QEMU's
/// `virtio-nsm.c`). A shorter response is not credited.
const NSM_BYTES: usize = 256;

/// Timeout of `getrandom`. With credited bits it returns at once; the limit is for a kernel that lost them.
const LIMIT: Duration = Duration::from_secs(5);

/// Seeds the kernel's generator and waits for it.
pub fn seed(boot: &mut Boot) -> Result<String, BootError> {
    let platform = boot.platform.unwrap_or(Platform::Virtual);
    let current = fs::read_to_string(CURRENT).unwrap_or_default();
    require_nsm(platform, current.trim())?;
    let mut sources = Vec::new();
    if platform == Platform::Nitro {
        credit_nsm()?;
        sources.push(NSM);
    } else {
        disable(current.trim())?;
    }
    match entropy::from_processor() {
        Ok((source, words)) => {
            entropy::credit(&words).map_err(BootError::Entropy)?;
            sources.push(source.name());
        }
        // The NSM is sufficient. A development machine may have an old processor, and has the kernel's own noise.
        Err(EntropyError::NoInstruction) if matches!(platform, Platform::Nitro | Platform::Virtual) => {}
        Err(error) => return Err(BootError::Entropy(error)),
    }
    entropy::await_ready(LIMIT).map_err(BootError::Entropy)?;
    Ok(sources.join(", "))
}

/// On Nitro the kernel's hardware generator must be the NSM; on other platforms it does not matter.
fn require_nsm(platform: Platform, current: &str) -> Result<(), BootError> {
    if platform == Platform::Nitro && current != NSM {
        return Err(BootError::Generator(current.to_owned()));
    }
    Ok(())
}

/// The driver feeds the kernel at its own pace; a direct request seeds it before anything starts.
fn credit_nsm() -> Result<(), BootError> {
    let nsm = Nsm::open(Path::new("/")).map_err(|error| BootError::Path("/dev/nsm", error))?;
    let module = Module::over(|request| nsm.exchange(request));
    let words = checked_words(&module.random().map_err(BootError::Nsm)?)?;
    entropy::credit(&words).map_err(BootError::Entropy)
}

/// The words of a complete response of the NSM that passed the health tests.
fn checked_words(random: &[u8]) -> Result<Vec<u64>, BootError> {
    let Some(random) = random.get(..NSM_BYTES) else {
        let short = format!("{} random bytes, expected {NSM_BYTES}", random.len());
        return Err(BootError::Nsm(NsmError::Response(short)));
    };
    let words: Vec<u64> =
        random.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_ne_bytes).collect();
    entropy::check(&words).map_err(|error| BootError::Entropy(EntropyError::UnhealthyDevice(NSM, error)))?;
    Ok(words)
}

/// Stops crediting a generator that belongs to the host, such as virtio-rng.
fn disable(current: &str) -> Result<(), BootError> {
    if current.is_empty() || current == "none" || !Path::new(QUALITY).exists() {
        return Ok(());
    }
    fs::write(QUALITY, "0").map_err(|error| BootError::Path(QUALITY, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nitro_does_not_boot_unless_the_nsm_is_the_hardware_generator() {
        assert!(matches!(require_nsm(Platform::Nitro, "virtio_rng.0"), Err(BootError::Generator(_))));
        assert!(matches!(require_nsm(Platform::Nitro, ""), Err(BootError::Generator(_))));
        assert!(require_nsm(Platform::Nitro, "nsm-hwrng").is_ok());
    }

    #[test]
    fn the_hardware_generator_of_other_platforms_does_not_matter() {
        assert!(require_nsm(Platform::Virtual, "virtio_rng.0").is_ok());
        assert!(require_nsm(Platform::Tdx, "").is_ok());
    }

    #[test]
    fn a_short_response_is_not_credited() {
        let response: Vec<u8> = (0..=255).collect();
        assert_eq!(checked_words(&response).unwrap().len(), 32);
        for length in [0, 8, 255] {
            let error = cloister_wire::causes::line(&checked_words(&response[..length]).unwrap_err());
            assert!(error.contains(&format!("{length} random bytes, expected 256")), "{error}");
        }
        assert!(matches!(checked_words(&[7; NSM_BYTES]), Err(BootError::Entropy(_))));
    }
}
