//! `app.cloister`: an enclave as a directory in the form of an OCI image layout, so that registries and their tools can
//! store and copy it.
//!
//! Invariant: an artifact is complete or does not exist. It is written under another name, made durable and renamed; a
//! reader hashes the bytes that it returns while it reads them.

mod contents;
mod nitro;
mod read;
mod record;
mod write;

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::oci::OciError;

pub use contents::{Contents, ContentsError, Item, ItemKind};
pub use nitro::NitroError;
pub use read::Artifact;
pub use record::{
    ApplicationRecord, BuildRecord, LayerRecord, OsRecord, Output, RootForm, ToolRecord,
    VERSION as RECORD_VERSION,
};
pub use write::{Finished, Writer};

/// The artifact type, for registries.
pub const ARTIFACT_TYPE: &str = "application/vnd.cloister.enclave.v1";

/// The annotation with the unpacked size of a ramdisk in bytes.
const UNPACKED: &str = "vnd.cloister.unpacked";

/// One of the parts of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// Ramdisk 1: the operating system.
    OsRamdisk,
    /// Ramdisk 2: the application and its manifest.
    AppRamdisk,
    /// The kernel's command line, without a line break.
    CommandLine,
    /// The canonical manifest, as it is in ramdisk 2.
    Manifest,
    /// The record of the release of the operating system.
    OsRelease,
    /// The digests of everything the enclave was built from.
    BuildRecord,
    /// The measurements that the hardware will report.
    Measurements,
    /// The signature section of the same enclave's image file for AWS Nitro. The rest of that file derives from the
    /// other parts.
    EifSignature,
    /// The software in it.
    BillOfMaterials,
}

/// Every part with its media type and the name under which tools save it.
const PARTS: [(Part, &str, &str); 10] = [
    (Part::Kernel, "application/vnd.cloister.kernel.v1", "kernel"),
    (Part::OsRamdisk, "application/vnd.cloister.ramdisk.os.v1", "os.ramdisk"),
    (Part::AppRamdisk, "application/vnd.cloister.ramdisk.app.v1", "app.ramdisk"),
    (Part::CommandLine, "application/vnd.cloister.cmdline.v1+text", "cmdline"),
    (Part::Manifest, "application/vnd.cloister.manifest.v1+json", "manifest.json"),
    (Part::OsRelease, "application/vnd.cloister.os.v1+json", "os.json"),
    (Part::BuildRecord, "application/vnd.cloister.build.v1+json", "build.json"),
    (Part::Measurements, "application/vnd.cloister.measurements.v1+json", "measurements.json"),
    (Part::EifSignature, "application/vnd.cloister.eif-signature.v1+cbor", "eif.signature"),
    (Part::BillOfMaterials, "application/vnd.cyclonedx+json", "sbom.json"),
];

/// The parts that booting or inspecting an enclave requires.
const REQUIRED: [Part; 7] = [
    Part::Kernel,
    Part::OsRamdisk,
    Part::AppRamdisk,
    Part::CommandLine,
    Part::Manifest,
    Part::OsRelease,
    Part::BuildRecord,
];

/// Why an artifact cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The output path exists and is something else: the operator must act.
    #[error("{} exists and is not an enclave image", .0.display())]
    Occupied(PathBuf),
    /// The layout cannot be read.
    #[error("{} is not an enclave image", .path.display())]
    Layout {
        /// The path of the artifact.
        path: PathBuf,
        /// The cause.
        #[source]
        error: OciError,
    },
    /// It is a layout of something else: the operator must act.
    #[error("{} is a container image and not an enclave image: build an enclave image from it first", .0.display())]
    NotAnEnclave(PathBuf),
    /// A part is missing: the artifact must be built again.
    #[error("{} has no {title}", .path.display())]
    NoPart {
        /// The path of the artifact.
        path: PathBuf,
        /// The title of the part.
        title: &'static str,
    },
    /// A part's bytes are not those that were built: the artifact must be built again.
    #[error("the {title} in {} has the digest {found} instead of {expected}", .path.display())]
    Changed {
        /// The path of the artifact.
        path: PathBuf,
        /// The title of the part.
        title: &'static str,
        /// The digest of the part as built.
        expected: Digest,
        /// The digest of the part as read.
        found: Digest,
    },
    /// A document in it cannot be parsed: another version of the program must read it, or it must be built again.
    #[error("the {title} in {} cannot be parsed", .path.display())]
    Document {
        /// The path of the artifact.
        path: PathBuf,
        /// The title of the part.
        title: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// An operation failed on this host.
    #[error("{} cannot be {verb}", .path.display())]
    Host {
        /// The operation, as a past participle.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Part {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        self.row().1
    }

    /// The name under which tools save it.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().2
    }

    fn of_media_type(media_type: &str) -> Option<Self> {
        PARTS.iter().find(|row| row.1 == media_type).map(|row| row.0)
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        // Every part has a row; a test checks that.
        PARTS.iter().find(|row| row.0 == self).copied().unwrap_or((self, "", ""))
    }
}

fn host(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ArtifactError + use<> {
    let path = path.to_owned();
    move |source| ArtifactError::Host { verb, path, source }
}

#[cfg(test)]
mod tests;
