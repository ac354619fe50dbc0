//! The platforms that an enclave runs on, by the names that everything uses: manifest, status, records, messages.
//!
//! Invariant: a name means the hardware that attests the enclave, never a program on the host that starts it. Init determines it
//! by the machine's devices.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The hardware that attests an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// AWS Nitro Enclaves.
    Nitro,
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
    /// A plain virtual machine, which nothing attests: for development.
    Virtual,
}

impl Platform {
    /// All of them, in their canonical order.
    pub const ALL: [Self; 4] = [Self::Nitro, Self::Tdx, Self::Snp, Self::Virtual];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Virtual => "virtual",
        }
    }

    /// A list of platforms in prose: `nitro, tdx and snp`; `none` for an empty one.
    #[must_use]
    pub fn list(platforms: &[Self]) -> String {
        match platforms {
            [] => "none".to_owned(),
            [only] => only.name().to_owned(),
            [first @ .., last] => {
                let first: Vec<_> = first.iter().map(|platform| platform.name()).collect();
                format!("{} and {last}", first.join(", "))
            }
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_in_the_canonical_manifest() {
        for platform in Platform::ALL {
            assert_eq!(serde_json::to_string(&platform).unwrap(), format!("\"{platform}\""));
        }
    }

    #[test]
    fn a_list_of_platforms_reads_as_prose() {
        assert_eq!(Platform::list(&Platform::ALL), "nitro, tdx, snp and virtual");
        assert_eq!(Platform::list(&[Platform::Tdx]), "tdx");
        assert_eq!(Platform::list(&[]), "none");
    }
}
