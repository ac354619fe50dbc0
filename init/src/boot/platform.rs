//! Stage `platform`: what this machine is, by its devices.
//!
//! Its law: the host does not get to say. Tables, DMI and the command line are not read; a device of one platform decides,
//! and devices of two stop the boot.

use std::fs;
use std::path::Path;

use super::{BootError, Machine};

/// Where an enclave can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// AWS Nitro Enclaves.
    Nitro,
    /// Intel Trust Domain Extensions.
    Tdx,
    /// AMD SEV-SNP.
    SevSnp,
    /// A machine without protection: for development.
    Virtual,
}

/// The devices that tell, and what they tell.
const DEVICES: [(&str, Platform); 3] =
    [("/dev/nsm", Platform::Nitro), ("/dev/tdx_guest", Platform::Tdx), ("/dev/sev-guest", Platform::SevSnp)];

/// Where the kernel offers evidence on TDX and SNP (`Documentation/ABI/testing/configfs-tsm`).
const TSM: &str = "/sys/kernel/config/tsm/report";

/// The names that providers of evidence give themselves there (`drivers/virt/coco`).
const PROVIDERS: [(&str, Platform); 2] = [("tdx_guest", Platform::Tdx), ("sev_guest", Platform::SevSnp)];

impl Platform {
    /// Its name in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Tdx => "tdx",
            Self::SevSnp => "sev-snp",
            Self::Virtual => "virtual",
        }
    }
}

/// Looks for the devices.
pub fn find(machine: &mut Machine) -> Result<String, BootError> {
    let devices = DEVICES.iter().filter(|(path, _)| Path::new(path).exists());
    let found: Vec<Platform> = devices.map(|(_, platform)| *platform).chain(provider()).collect();
    let platform = decide(&found)?;
    machine.platform = Some(platform);
    Ok(platform.name().to_owned())
}

/// What the devices found say together.
fn decide(found: &[Platform]) -> Result<Platform, BootError> {
    let Some((first, others)) = found.split_first() else {
        return Ok(Platform::Virtual);
    };
    match others.iter().find(|other| *other != first) {
        Some(other) => Err(BootError::Platforms(*first, *other)),
        None => Ok(*first),
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
    fn a_machine_without_devices_is_virtual() {
        assert_eq!(decide(&[]).unwrap(), Platform::Virtual);
    }

    #[test]
    fn a_device_and_its_provider_agree() {
        assert_eq!(decide(&[Platform::Tdx, Platform::Tdx]).unwrap(), Platform::Tdx);
    }

    #[test]
    fn devices_of_two_platforms_stop_the_boot() {
        let error = decide(&[Platform::Nitro, Platform::SevSnp]).unwrap_err();
        assert_eq!(error.to_string(), "this machine has the devices of both nitro and sev-snp");
    }
}
