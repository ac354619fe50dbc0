//! From an input and a manifest to an artifact, in two calls.
//!
//! Its law: what comes out depends on what the paths hold, never on where they are, who reads them, or when.
//!
//! [`open()`] reads the application. The manifest is then resolved against it by the caller, who can show every fault in it
//! to its author; [`pack()`] writes the artifact.

mod blame;
mod configured;
mod open;
mod pack;
mod places;
mod stop;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cloister_manifest::Manifest;
use cloister_manifest::model::ModelError;
use cloister_manifest::source::{self, Arch, ImageConfig};

use crate::artifact::{ApplicationRecord, ArtifactFault, RootForm, ToolRecord};
use crate::cpio::WriteFault;
use crate::digest::Digest;
use crate::directory::DirectoryFault;
use crate::eif::{self, Signer};
use crate::erofs;
use crate::layers::{LayerFault, Notes};
use crate::limits::Limits;
use crate::oci::{Architecture, OciFault, Select};
use crate::ramdisk::OsFault;
use crate::tree::Tree;

pub use blame::Who;
pub use open::open;
pub use pack::pack;

/// Where an application is read from. What is in a registry has been fetched into a layout before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An OCI image layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which image in it.
        select: Select,
    },
    /// An OCI image layout in an archive.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which image in it.
        select: Select,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image in it.
        select: Select,
    },
    /// Blobs that were fetched from a registry.
    Fetched {
        /// A directory with `blobs/sha256`.
        blobs: PathBuf,
        /// The manifest's digest, or the index's that names it.
        digest: Digest,
        /// The image's name in the registry, without a tag.
        repository: String,
    },
    /// A root file system.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// How an application is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The machine it must be for.
    pub architecture: Architecture,
    /// A directory on a disk with room for the application unpacked. Nothing stays in it.
    pub scratch: &'a Path,
    /// How much it may be.
    pub limits: Limits,
    /// If it is there: the latest modification time, in seconds since 1970 (`SOURCE_DATE_EPOCH`). Later ones become it.
    pub clamp_mtime: Option<i64>,
}

/// An application that has been read.
#[derive(Debug)]
pub struct Application {
    /// Its root.
    pub tree: Tree,
    /// How its image says it is run. A directory says nothing.
    pub config: ImageConfig,
    /// What was left out.
    pub notes: Notes,
    /// Where it came from.
    pub record: ApplicationRecord,
    architecture: Architecture,
    clamp_mtime: Option<i64>,
}

/// What else goes into an artifact.
#[derive(Clone, Debug)]
pub struct Pack<'a> {
    /// The manifest, resolved against the application.
    pub manifest: &'a Manifest,
    /// The digest of the manifest as people wrote it, where it was in a file.
    pub manifest_source: Option<Digest>,
    /// The directory with the release of the operating system.
    pub os: &'a Path,
    /// The form of the root in ramdisk 2.
    pub root: RootForm,
    /// How many threads compress. What comes out does not depend on it.
    pub workers: NonZeroUsize,
    /// Who packs.
    pub tool: ToolRecord,
    /// Who signs it for AWS Nitro, if anybody does.
    pub signer: Option<&'a Signer>,
    /// Where the artifact is to be.
    pub output: &'a Path,
    /// Once it is set, the build is given up, and leaves nothing behind.
    pub stop: &'a AtomicBool,
}

/// Why there is no artifact. [`BuildFault::blame`] says who must act.
#[derive(Debug, thiserror::Error)]
pub enum BuildFault {
    /// The input is not what it is said to be, or not for this machine.
    #[error("the image {} cannot be used", .path.display())]
    Input {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        fault: OciFault,
    },
    /// A layer is refused.
    #[error("layer {number} of {count} ({digest}) is refused")]
    Layer {
        /// Which, from 1.
        number: usize,
        /// Of how many.
        count: usize,
        /// Its digest, or that of the tar in it.
        digest: Digest,
        /// Why.
        #[source]
        fault: Box<LayerFault>,
    },
    /// The directory cannot be used.
    #[error("the directory {} cannot be used", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        fault: DirectoryFault,
    },
    /// The manifest cannot be written as the enclave reads it.
    #[error("the manifest cannot be written")]
    Manifest(#[source] ModelError),
    /// The release of the operating system cannot be used.
    #[error("the operating system in {} cannot be used", .path.display())]
    Os {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        fault: OsFault,
    },
    /// The application does not go into a ramdisk.
    #[error("the application's ramdisk cannot be written")]
    Ramdisk(#[source] WriteFault),
    /// The application does not go into a file system.
    #[error("the application's file system cannot be written")]
    Erofs(#[source] erofs::Error),
    /// It is to be signed for AWS Nitro, and the release is for no such machine.
    #[error("the Cloister OS is for no AWS Nitro machine, so there is nothing to sign")]
    NoNitro,
    /// It cannot be signed.
    #[error("the image cannot be signed")]
    Sign(#[source] eif::Error),
    /// The artifact cannot be written.
    #[error("the artifact cannot be written")]
    Artifact(#[from] ArtifactFault),
    /// Whoever wanted it does not want it any more.
    #[error("the build was given up")]
    GivenUp,
    /// The scratch directory cannot be used.
    #[error("the scratch directory {} cannot be used", .path.display())]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Application {
    /// What a manifest is resolved against.
    #[must_use]
    pub fn image(&self) -> source::Image<'_> {
        let arch = match self.architecture {
            Architecture::X86_64 => Arch::X86_64,
            Architecture::Aarch64 => Arch::Aarch64,
        };
        source::Image { config: &self.config, root: &self.tree, arch }
    }
}

#[cfg(test)]
mod tests;
