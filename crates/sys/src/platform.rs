//! Platform detection by devices.
//!
//! Invariant: a platform is detected by its device, never by data that the host controls (DMI, the command line), and
//! two that disagree stop the boot: a host must not be able to select the weaker path.

use std::fmt;
use std::path::Path;

/// The platform that attests this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// An AWS Nitro enclave: the Nitro Security Module.
    Nitro,
    /// An Intel TDX trust domain.
    Tdx,
    /// An AMD SEV-SNP guest.
    Snp,
    /// Nothing: a plain virtual machine, for development.
    Virtual,
}

/// The device of each platform, relative to the root directory: `drivers/misc/nsm.c`, `drivers/virt/coco/` of the
/// kernel.
const DEVICES: [(&str, Platform); 3] =
    [("dev/nsm", Platform::Nitro), ("dev/tdx_guest", Platform::Tdx), ("dev/sev-guest", Platform::Snp)];

/// The devices of two platforms were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement(pub Platform, pub Platform);

impl Platform {
    /// The platform of the machine whose root directory is `root`.
    pub fn detect(root: &Path) -> Result<Self, Disagreement> {
        let mut found = None;
        for (device, platform) in DEVICES {
            if root.join(device).symlink_metadata().is_ok() {
                if let Some(first) = found {
                    return Err(Disagreement(first, platform));
                }
                found = Some(platform);
            }
        }
        Ok(found.unwrap_or(Self::Virtual))
    }

    /// The name used in manifests, statuses, records, evidence and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Virtual => "virtual",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "found the devices of two platforms, {} and {}; one of them cannot be genuine",
            self.0, self.1
        )
    }
}

impl std::error::Error for Disagreement {}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(devices: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        for device in devices {
            std::fs::write(root.path().join(device), "").unwrap();
        }
        root
    }

    #[test]
    fn each_platform_is_detected_by_its_device() {
        for (device, platform) in DEVICES {
            assert_eq!(Platform::detect(machine(&[device]).path()), Ok(platform));
        }
    }

    #[test]
    fn a_machine_without_any_device_is_virtual() {
        assert_eq!(Platform::detect(machine(&[]).path()), Ok(Platform::Virtual));
    }

    #[test]
    fn two_platforms_at_once_are_an_error_that_names_both() {
        let both = Platform::detect(machine(&["dev/nsm", "dev/sev-guest"]).path()).unwrap_err();
        assert_eq!(both, Disagreement(Platform::Nitro, Platform::Snp));
        assert!(both.to_string().contains("nitro") && both.to_string().contains("snp"));
    }
}
