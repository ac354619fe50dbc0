//! The same enclave as an image file for AWS Nitro, and its measurements.
//!
//! Invariant: the file derives from the other parts, so it need not be stored: writing it from an artifact gives the
//! same file with the same registers anywhere, at any time. Only the signature cannot be recreated without its key, so
//! it is a part.

use std::collections::BTreeMap;
use std::io::{self, Seek, Write};

use super::{Artifact, ArtifactError, BuildRecord, Part};
use crate::eif::{
    self, Arch, BuildMetadata, FIXED_TIME, MEMORY_FACTOR, Metadata, Parts, Signing, Summary, write,
};
use crate::measure::{self, Measurements};
use crate::oci::Architecture;
use crate::ramdisk::OsRelease;
use crate::tree::Content;

/// Minimum default memory of a file, if its size does not need more: the same default as on other platforms.
const LEAST_MEMORY: u64 = 512 << 20;

/// The unit of memory sizes.
const MIB: u64 = 1 << 20;

/// The default number of processors of a file: one for the supervisor, one for the services.
const CPUS: u64 = 2;

/// Why no image file for AWS Nitro can be written.
#[derive(Debug, thiserror::Error)]
pub enum NitroError {
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The release has no command line for Nitro: the operator must use another release.
    #[error("the Cloister OS in this image does not support AWS Nitro")]
    NoNitro,
    /// The file cannot be written.
    #[error(transparent)]
    Eif(#[from] eif::Error),
}

impl Artifact {
    /// Writes the file that AWS Nitro boots, at the current position of `out`. Every part's digest is checked first.
    pub fn write_eif(&self, out: &mut (impl Write + Seek)) -> Result<Summary, NitroError> {
        let release = self.os_release()?;
        let command_line = release.cmdline_nitro.as_deref().ok_or(NitroError::NoNitro)?;
        let kernel = self.checked(Part::Kernel)?;
        let ramdisks = vec![self.checked(Part::OsRamdisk)?, self.checked(Part::AppRamdisk)?];
        let signature = self.signature()?;
        let sizes = ramdisks.iter().map(Content::len).fold(kernel.len(), u64::saturating_add);
        let parts = Parts {
            arch: arch(release.arch),
            kernel,
            command_line,
            ramdisks,
            metadata: self.metadata(&release)?,
            default_memory: default_memory(sizes),
            default_cpus: CPUS,
            signing: signature.as_deref().map_or(Signing::Unsigned, Signing::Made),
        };
        Ok(write(&parts, out)?)
    }

    /// The measurements that the hardware will report, computed from the parts. Every part's digest is checked first.
    pub fn measurements(&self) -> Result<Measurements, NitroError> {
        let release = self.os_release()?;
        let mut measurements = measure::of_release(&release);
        if let Some(command_line) = &release.cmdline_nitro {
            let kernel = self.checked(Part::Kernel)?;
            let ramdisks = [self.checked(Part::OsRamdisk)?, self.checked(Part::AppRamdisk)?];
            let mut nitro = measure::nitro(&kernel, command_line, &ramdisks, None)
                .map_err(|source| eif::Error::Read { part: "the enclave image", source })?;
            if let Some(section) = self.signature()? {
                nitro.pcrs.pcr8 = Some(Signing::Made(&section).signer_register(&nitro.pcrs.pcr0)?);
            }
            measurements.nitro = Some(nitro);
        }
        Ok(measurements)
    }

    /// The measurements that the platform `virtual` will report, computed from the parts: those of AWS Nitro with this image's own
    /// command line. Every part's digest is checked first.
    pub fn development_measurements(&self) -> Result<Measurements, NitroError> {
        let mut measurements = measure::of_release(&self.os_release()?);
        let kernel = self.checked(Part::Kernel)?;
        let ramdisks = [self.checked(Part::OsRamdisk)?, self.checked(Part::AppRamdisk)?];
        let measured = measure::nitro(&kernel, &self.command_line()?, &ramdisks, None);
        let unread = |source| eif::Error::Read { part: "the enclave image", source };
        measurements.development = Some(measured.map_err(unread)?);
        Ok(measurements)
    }

    fn signature(&self) -> Result<Option<Vec<u8>>, ArtifactError> {
        if self.size(Part::EifSignature) == 0 {
            return Ok(None);
        }
        self.document(Part::EifSignature).map(Some)
    }

    fn checked(&self, part: Part) -> Result<Content, ArtifactError> {
        self.copy(part, &mut io::sink())?;
        Ok(self.part(part)?.content())
    }

    fn metadata(&self, release: &OsRelease) -> Result<Metadata, ArtifactError> {
        let record: BuildRecord = self.build_record()?;
        let os: serde_json::Value = self.json(Part::OsRelease)?;
        let kernel = os.pointer("/kernel/release").and_then(serde_json::Value::as_str).unwrap_or_default();
        let custom = [("CloisterOs", release.version.clone()), ("Enclave", self.digest().to_string())];
        Ok(Metadata {
            image_name: self.manifest()?.name,
            image_version: record.application.digest().to_string(),
            build_metadata: BuildMetadata {
                build_time: FIXED_TIME.to_owned(),
                build_tool: record.tool.name,
                build_tool_version: record.tool.version,
                operating_system: "Linux".to_owned(),
                kernel_version: kernel.to_owned(),
            },
            docker_info: BTreeMap::new(),
            custom_metadata: custom.map(|(name, value)| (name.to_owned(), value)).into(),
        })
    }
}

fn arch(architecture: Architecture) -> Arch {
    match architecture {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64 => Arch::Aarch64,
    }
}

/// The default memory for a file whose parts have this total size, in whole MiB.
fn default_memory(sizes: u64) -> u64 {
    // Headers and metadata take less than one of the two MiB that are added.
    let file = sizes.saturating_add(2 * MIB);
    let needed = file.saturating_mul(MEMORY_FACTOR) / MIB * MIB;
    needed.max(LEAST_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_memory_satisfies_the_vendors_tools() {
        assert_eq!(default_memory(1 << 20), 512 << 20);
        assert_eq!(default_memory((300 << 20) + 1), (302 << 20) * 4);
    }
}
