//! Predicts before the launch what the hardware will measure.
//!
//! Invariant: a prediction is a function of the image's bytes alone. [`Measurements`] is the document that a build
//! writes beside its outputs; docs/measurements.md describes its format.

mod pcr;

use std::io::Read;

use serde::{Deserialize, Serialize};

pub use pcr::{NitroPcrs, NotAPcr, Pcr, PcrHasher, Role};

use crate::eif::Arch;
use crate::oci::Architecture;
use crate::ramdisk::OsRelease;
use crate::tree::Content;

/// The version of the document.
pub const VERSION: u32 = 1;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// `measurements.json`: for each platform that the image can run on, the measurements that it will report. Readers
/// ignore platforms that they do not know, so that an older verifier can read a newer document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// [`VERSION`].
    pub version: u32,
    /// The processor the image is for.
    pub arch: Arch,
    /// The version of the operating system's release, if known. Its measurements are the same for every application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// AWS Nitro Enclaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nitro: Option<NitroMeasurements>,
    /// The platform `virtual`, whose registers have the same form and which no hardware vouches for. A build does not write them.
    #[serde(rename = "virtual", skip_serializing_if = "Option::is_none")]
    pub development: Option<NitroMeasurements>,
}

/// The measurements that AWS Nitro Enclaves will report, or a development module in its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NitroMeasurements {
    /// The kernel's command line, which PCR0 and PCR1 cover.
    pub command_line: String,
    /// The registers.
    pub pcrs: NitroPcrs,
}

/// The document for a release, without measurements.
#[must_use]
pub fn of_release(release: &OsRelease) -> Measurements {
    let arch = match release.arch {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64 => Arch::Aarch64,
    };
    Measurements { version: VERSION, arch, os: Some(release.version.clone()), nitro: None, development: None }
}

/// The registers of an image with these parts; `certificate` is the signing certificate in DER, if any.
pub fn nitro(
    kernel: &Content,
    command_line: &str,
    ramdisks: &[Content],
    certificate: Option<&[u8]>,
) -> std::io::Result<NitroMeasurements> {
    let mut hasher = PcrHasher::default();
    pass(kernel, Role::System, &mut hasher)?;
    hasher.update(Role::System, command_line.as_bytes());
    for (number, ramdisk) in ramdisks.iter().enumerate() {
        pass(ramdisk, if number == 0 { Role::System } else { Role::Application }, &mut hasher)?;
    }
    Ok(NitroMeasurements { command_line: command_line.to_owned(), pcrs: hasher.finish(certificate) })
}

fn pass(content: &Content, role: Role, hasher: &mut PcrHasher) -> std::io::Result<()> {
    let mut reader = content.reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => hasher.update(role, buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
