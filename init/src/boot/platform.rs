//! Stage `platform`: detects the platform by its devices.
//!
//! Invariant: the host has no say in it. Firmware tables, DMI and the command line are not read; a device of one platform
//! decides, the provider of evidence must agree with it, and devices of two platforms stop the boot.

use std::fs;
use std::path::Path;

use cloister_sys::platform::{Disagreement, Platform};

use super::{Boot, BootError};

/// Where the kernel provides evidence on TDX and SNP (`Documentation/ABI/testing/configfs-tsm`).
const TSM: &str = "/sys/kernel/config/tsm/report";

/// The names of the providers of evidence there (`drivers/virt/coco`).
const PROVIDERS: [(&str, Platform); 2] = [("tdx_guest", Platform::Tdx), ("sev_guest", Platform::Snp)];

/// Detects the platform.
pub fn find(boot: &mut Boot) -> Result<String, BootError> {
    let device = Platform::detect(Path::new("/")).map_err(BootError::Platforms)?;
    let platform = agree(device, provider()).map_err(BootError::Platforms)?;
    boot.platform = Some(platform);
    Ok(platform.name().to_owned())
}

/// The platform by device and provider of evidence. A provider alone is sufficient: its device node may have been renamed.
fn agree(device: Platform, provider: Option<Platform>) -> Result<Platform, Disagreement> {
    match (device, provider) {
        (Platform::Virtual, Some(provider)) => Ok(provider),
        (device, Some(provider)) if provider != device => Err(Disagreement(device, provider)),
        (device, _) => Ok(device),
    }
}

/// The provider of evidence in configfs: a directory can be created there only if there is one, and a file in it contains its
/// name. `cloister_sys::tsm`, which requests reports, is not used: its checks would add 1.6 kB to PID 1.
fn provider() -> Option<Platform> {
    let probe = Path::new(TSM).join("platform");
    fs::create_dir(&probe).ok()?;
    let name = fs::read_to_string(probe.join("provider")).unwrap_or_default();
    // If the directory is left behind, it only takes a little memory.
    drop(fs::remove_dir(&probe));
    PROVIDERS.iter().find(|(provider, _)| *provider == name.trim()).map(|(_, platform)| *platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_and_its_provider_agree() {
        assert_eq!(agree(Platform::Tdx, Some(Platform::Tdx)), Ok(Platform::Tdx));
        assert_eq!(agree(Platform::Nitro, None), Ok(Platform::Nitro));
        assert_eq!(agree(Platform::Virtual, None), Ok(Platform::Virtual));
    }

    #[test]
    fn evidence_of_another_platform_stops_the_boot() {
        let both = agree(Platform::Nitro, Some(Platform::Snp));
        assert_eq!(both, Err(Disagreement(Platform::Nitro, Platform::Snp)));
    }
}
