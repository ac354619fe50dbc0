//! Stage `entropy`: random bits that the host does not know, before anything asks for some.
//!
//! Its law: it passes only when the kernel's generator holds tested bits from inside the trust boundary, and answers. What
//! counts as inside depends on the platform, and a host's device never does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cloister_sys::entropy::{self, EntropyError};

use super::{BootError, Machine, Platform};

/// The kernel's present hardware generator (`Documentation/admin-guide/hw_random.rst`).
const CURRENT: &str = "/sys/class/misc/hw_random/rng_current";

/// How many bits of each 1024 of it are credited; 0 switches it off.
const QUALITY: &str = "/sys/class/misc/hw_random/rng_quality";

/// What the NSM's driver calls itself there (`drivers/misc/nsm.c`).
const NSM: &str = "nsm-hwrng";

/// `getrandom` must answer by then. With credited bits it answers at once; the limit is for a kernel that lost them.
const LIMIT: Duration = Duration::from_secs(5);

/// Seeds the kernel's generator and waits for it.
pub fn seed(machine: &mut Machine) -> Result<String, BootError> {
    let platform = machine.platform.unwrap_or(Platform::Virtual);
    let current = fs::read_to_string(CURRENT).unwrap_or_default();
    let nsm = admit(platform, current.trim())?;
    if !nsm {
        silence_host_generator(current.trim())?;
    }
    let from = match entropy::from_processor() {
        Ok((source, words)) => {
            entropy::credit(&words).map_err(BootError::Entropy)?;
            source.name()
        }
        // The NSM feeds the kernel by itself. A development machine may have an old processor.
        Err(EntropyError::NoInstruction) if nsm => NSM,
        Err(EntropyError::NoInstruction) if platform == Platform::Virtual => "the kernel's own",
        Err(error) => return Err(BootError::Entropy(error)),
    };
    entropy::await_ready(LIMIT).map_err(BootError::Entropy)?;
    Ok(if nsm && from != NSM { format!("{from}, {NSM}") } else { from.to_owned() })
}

/// Whether the kernel's hardware generator is the NSM, which it must be on Nitro and cannot be elsewhere.
fn admit(platform: Platform, current: &str) -> Result<bool, BootError> {
    match (platform, current == NSM) {
        (Platform::Nitro, false) => Err(BootError::Generator(current.to_owned())),
        (_, is_nsm) => Ok(is_nsm),
    }
}

/// A generator that belongs to the host, such as virtio-rng, is credited nothing from here on.
fn silence_host_generator(current: &str) -> Result<(), BootError> {
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
        assert!(admit(Platform::Nitro, "nsm-hwrng").unwrap());
    }

    #[test]
    fn elsewhere_the_generator_does_not_matter() {
        assert!(!admit(Platform::Virtual, "virtio_rng.0").unwrap());
        assert!(!admit(Platform::Tdx, "").unwrap());
    }
}
