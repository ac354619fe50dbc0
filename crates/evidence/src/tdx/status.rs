//! TCB statuses, by Intel's names.
//!
//! Invariant: a status that is not in a policy's list is refused, and `Revoked` cannot be in it.
//!
//! Source: Intel SGX/TDX Provisioning Certification Service, API version 4, "Get TDX TCB Info".

use core::fmt;

/// How a platform's firmware compares with what Intel has published. A revoked platform has no status here: it is always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcbStatus {
    /// All updates are installed.
    UpToDate,
    /// Updates are installed; the software in the guest must contain mitigations.
    SwHardeningNeeded,
    /// Updates are installed; the platform's configuration must be changed.
    ConfigurationNeeded,
    /// Both of the former.
    ConfigurationAndSwHardeningNeeded,
    /// Updates are missing.
    OutOfDate,
    /// Updates are missing, and the platform's configuration must be changed.
    OutOfDateConfigurationNeeded,
    /// The guest was launched before an update that is installed now.
    TdRelaunchAdvised,
    /// The same, and the platform's configuration must be changed.
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    /// Intel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }

    /// The status with one of Intel's names.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    const ALL: [Self; 8] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
    ];

    pub(crate) const fn of_library(status: dcap_qvl::TcbStatus) -> Option<Self> {
        use dcap_qvl::TcbStatus as Library;
        match status {
            Library::UpToDate => Some(Self::UpToDate),
            Library::SWHardeningNeeded => Some(Self::SwHardeningNeeded),
            Library::ConfigurationNeeded => Some(Self::ConfigurationNeeded),
            Library::ConfigurationAndSWHardeningNeeded => Some(Self::ConfigurationAndSwHardeningNeeded),
            Library::OutOfDate => Some(Self::OutOfDate),
            Library::OutOfDateConfigurationNeeded => Some(Self::OutOfDateConfigurationNeeded),
            Library::TDRelaunchAdvised => Some(Self::TdRelaunchAdvised),
            Library::TDRelaunchAdvisedConfigurationNeeded => Some(Self::TdRelaunchAdvisedConfigurationNeeded),
            Library::Revoked => None,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
