//! `app.cloister`: an enclave as a directory in the form of an OCI image layout, so that registries and their tools carry it.
//!
//! Its law: a directory is complete or not there. It is written under another name, made durable and renamed; a reader
//! hashes what it hands out, when it hands it out.

mod contents;
mod nitro;
mod read;
mod record;
mod write;

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::oci::OciFault;

pub use contents::{Contents, ContentsFault, Item, ItemKind};
pub use nitro::NitroFault;
pub use read::Artifact;
pub use record::{
    ApplicationRecord, BuildRecord, LayerRecord, OsRecord, Output, RootForm, ToolRecord,
    VERSION as RECORD_VERSION,
};
pub use write::{Finished, Writer};

/// What the artifact is, for registries.
pub const ARTIFACT_TYPE: &str = "application/vnd.cloister.enclave.v1";

/// The annotation of a ramdisk that says how many bytes the kernel unpacks it to.
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
    /// What the hardware will measure.
    Measurements,
    /// Who vouches for the same enclave as a file for AWS Nitro: the file's signature section. The rest of that file follows
    /// from the other parts.
    EifSignature,
    /// What software is in it.
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

/// Without these nothing boots or nothing can be explained.
const REQUIRED: [Part; 7] = [
    Part::Kernel,
    Part::OsRamdisk,
    Part::AppRamdisk,
    Part::CommandLine,
    Part::Manifest,
    Part::OsRelease,
    Part::BuildRecord,
];

/// Why an artifact is not written or not used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactFault {
    /// There is something else where the artifact is to be: the operator must act.
    #[error("{} is there already and is no enclave artifact", .0.display())]
    Occupied(PathBuf),
    /// The layout cannot be read.
    #[error("{} is no enclave artifact", .path.display())]
    Layout {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        fault: OciFault,
    },
    /// It is a layout of something else: the operator must act.
    #[error("{} is an image layout, but of no enclave: build one from it first", .0.display())]
    NotAnEnclave(PathBuf),
    /// A part is not there: the artifact must be built again.
    #[error("{} has no {title}", .path.display())]
    NoPart {
        /// Where.
        path: PathBuf,
        /// Which part.
        title: &'static str,
    },
    /// A part's bytes are not those that were built: the artifact must be built again.
    #[error("the {title} in {} has the digest {found}, and was built with {expected}", .path.display())]
    Changed {
        /// Where.
        path: PathBuf,
        /// Which part.
        title: &'static str,
        /// What was built.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// A document in it cannot be understood: another version of the program must read it, or it must be built again.
    #[error("the {title} in {} cannot be understood", .path.display())]
    Document {
        /// Where.
        path: PathBuf,
        /// Which part.
        title: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// This host must be looked at.
    #[error("{} cannot be {verb}", .path.display())]
    Host {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
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
        // Every part has its row, as a test sees to.
        PARTS.iter().find(|row| row.0 == self).copied().unwrap_or((self, "", ""))
    }
}

fn host(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ArtifactFault + use<> {
    let path = path.to_owned();
    move |source| ArtifactFault::Host { verb, path, source }
}

#[cfg(test)]
mod tests;
