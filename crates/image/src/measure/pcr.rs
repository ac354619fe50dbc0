//! The platform configuration registers that AWS Nitro fills from an image.
//!
//! Invariant: a register is the SHA-384 of 48 zero bytes and the SHA-384 of its data, as if extended once in a TPM.
//! [`PcrHasher`] documents the data; the values were checked against the vendor's library (docs/eif.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

/// The value of a register.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; 48]);

/// A text that is not the value of a register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCR value of 96 lower-case hexadecimal digits")]
pub struct NotAPcr(pub String);

/// The registers of an image, as `DescribePCR` and attestation documents report them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NitroPcrs {
    /// Kernel, command line and all ramdisks.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk: the operating system's release.
    pub pcr1: Pcr,
    /// The other ramdisks: the application.
    pub pcr2: Pcr,
    /// The signing certificate. Zeros in the enclave if the image is not signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Pcr>,
}

/// Computes PCR0, PCR1 and PCR2 from the parts of an image, which are passed in order.
#[derive(Clone, Debug, Default)]
pub struct PcrHasher {
    image: Sha384,
    system: Sha384,
    application: Sha384,
}

/// Which registers cover a part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kernel, command line, first ramdisk: PCR0 and PCR1.
    System,
    /// Any other ramdisk: PCR0 and PCR2.
    Application,
}

impl Pcr {
    /// A register that was never extended.
    pub const ZERO: Self = Self([0; 48]);

    /// The register after one extension with the digest of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self::extended(Sha384::new_with_prefix(data))
    }

    /// The 48 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 48] {
        &self.0
    }

    /// The register after one extension with `data`, as the security module extends it.
    #[must_use]
    pub fn extend(&self, data: &[u8]) -> Self {
        Self(Sha384::new_with_prefix(self.0).chain_update(data).finalize().into())
    }

    fn extended(data: Sha384) -> Self {
        Self::ZERO.extend(&data.finalize())
    }
}

impl NitroPcrs {
    /// The value of a register by its number, if it depends on the image.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<Pcr> {
        match index {
            0 => Some(self.pcr0),
            1 => Some(self.pcr1),
            2 => Some(self.pcr2),
            8 => Some(self.pcr8.unwrap_or(Pcr::ZERO)),
            _ => None,
        }
    }
}

impl PcrHasher {
    /// Adds the next bytes of a part. Kernel, command line and ramdisks must be passed in this order.
    pub fn update(&mut self, role: Role, bytes: &[u8]) {
        self.image.update(bytes);
        match role {
            Role::System => self.system.update(bytes),
            Role::Application => self.application.update(bytes),
        }
    }

    /// The registers; `certificate` is the signing certificate in DER, if any.
    #[must_use]
    pub fn finish(self, certificate: Option<&[u8]>) -> NitroPcrs {
        NitroPcrs {
            pcr0: Pcr::extended(self.image),
            pcr1: Pcr::extended(self.system),
            pcr2: Pcr::extended(self.application),
            pcr8: certificate.map(Pcr::of),
        }
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pcr {
    type Err = NotAPcr;

    fn from_str(text: &str) -> Result<Self, NotAPcr> {
        let wrong = || NotAPcr(text.chars().take(100).collect());
        let digits = text.as_bytes();
        if digits.len() != 96 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut bytes = [0; 48];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Pcr {
    type Error = NotAPcr;

    fn try_from(text: String) -> Result<Self, NotAPcr> {
        text.parse()
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> Self {
        pcr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_those_of_the_vendors_library() {
        // From aws-nitro-enclaves-image-format 0.8.1 with these parts (docs/eif.md has the commands).
        let mut hasher = PcrHasher::default();
        hasher.update(Role::System, b"kernel");
        hasher.update(Role::System, b"console=ttyS0");
        hasher.update(Role::System, b"first ramdisk");
        hasher.update(Role::Application, b"second ramdisk");
        let certificate = include_bytes!("../eif/test_data/test-certificate.der");
        let pcrs = hasher.finish(Some(certificate));
        assert_eq!(
            pcrs.pcr0.to_string(),
            "fa05c63734dffa1d7a48af1ac81b7f8c0f91e7bab7683c291511bc35d292b3736a6b804a7dfc7bf54ce4b2d3e4035bbc"
        );
        assert_eq!(
            pcrs.pcr1.to_string(),
            "5fe1aeda49d5d421c95a10148a9730a588b3543443aa54fc2bdac925a0d9250e5c39dd9e63169bba04db090a56c72bae"
        );
        assert_eq!(
            pcrs.pcr2.to_string(),
            "ce19d22a3254eb42d44040f172c0a45fac31aa7c61e10702f95a23228e9c285951752cf9a43889687fc1e7335d3ee594"
        );
        assert_eq!(
            pcrs.pcr8.unwrap().to_string(),
            "bff568e3b20218085b77c07fb491519b46907439c61d91336ae43182f894d1356354784ebf799f2630050774f66216d6"
        );
    }

    #[test]
    fn a_value_is_parsed_as_it_is_formatted_and_in_no_other_form() {
        let pcr = Pcr::of(b"anything");
        assert_eq!(pcr.to_string().parse(), Ok(pcr));
        for text in ["", "00", &"0".repeat(95), &"0".repeat(97), &"A".repeat(96), &"é".repeat(48)] {
            assert!(text.parse::<Pcr>().is_err(), "{text}");
        }
    }
}
