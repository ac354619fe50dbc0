//! Stage `platform`: what this machine is, by its devices.
//!
//! Its law: the host does not get to say. Tables, DMI and the command line are not read; a device of one platform decides,
//! what offers evidence must agree with it, and devices of two stop the boot.

use std::fs;
use std::path::Path;

use cloister_sys::platform::{Disagreement, Platform};

use super::{Boot, BootError};

/// Where the kernel offers evidence on TDX and SNP (`Documentation/ABI/testing/configfs-tsm`).
const TSM: &str = "/sys/kernel/config/tsm/report";

/// The names that providers of evidence give themselves there (`drivers/virt/coco`).
const PROVIDERS: [(&str, Platform); 2] = [("tdx_guest", Platform::Tdx), ("sev_guest", Platform::SevSnp)];

/// Looks for the devices.
pub fn find(boot: &mut Boot) -> Result<String, BootError> {
    let device = Platform::detect(Path::new("/")).map_err(BootError::Platforms)?;
    let platform = agree(device, provider()).map_err(BootError::Platforms)?;
    boot.platform = Some(platform);
    Ok(platform.name().to_owned())
}

/// What the device and the provider of evidence say together. A provider alone is one: its device node may be named anew.
fn agree(device: Platform, provider: Option<Platform>) -> Result<Platform, Disagreement> {
    match (device, provider) {
        (Platform::Virtual, Some(provider)) => Ok(provider),
        (device, Some(provider)) if provider != device => Err(Disagreement(device, provider)),
        (device, _) => Ok(device),
    }
}

/// Who offers evidence through configfs: a folder can be made there only with a provider, whose name is a file in it.
fn provider() -> Option<Platform> {
    let probe = Path::new(TSM).join("platform");
    fs::create_dir(&probe).ok()?;
    let name = fs::read_to_string(probe.join("provider")).unwrap_or_default();
    // A folder left behind would only take a little memory.
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
        let both = agree(Platform::Nitro, Some(Platform::SevSnp));
        assert_eq!(both, Err(Disagreement(Platform::Nitro, Platform::SevSnp)));
    }
}
