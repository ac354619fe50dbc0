//! From an input and a manifest to an artifact, in two calls.
//!
//! Invariant: the output depends on the contents of the inputs, never on where they are, who reads them, or when.
//!
//! [`open()`] reads the application. The caller then resolves the manifest against it, and can report every error in it
//! to its author; [`pack()`] writes the artifact.

mod configured;
mod open;
mod pack;
mod places;
mod responsibility;
mod stop;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cloister_manifest::Manifest;
use cloister_manifest::model::ModelError;
use cloister_manifest::source::{self, Arch, ImageConfig};

use crate::artifact::{ApplicationRecord, ArtifactError, RootForm, ToolRecord};
use crate::cpio::WriteError;
use crate::digest::Digest;
use crate::directory::DirectoryError;
use crate::eif::{self, Signer};
use crate::erofs;
use crate::layers::{LayerError, Notes};
use crate::limits::Limits;
use crate::oci::{Architecture, OciError, Select};
use crate::ramdisk::OsError;
use crate::tree::Tree;

pub use open::open;
pub use pack::pack;
pub use responsibility::Responsible;

/// Where an application is read from. Images in registries have been fetched before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An OCI image layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The image in it.
        select: Select,
    },
    /// An OCI image layout in an archive.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The image in it.
        select: Select,
    },
    /// An archive written by `docker save`.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The image in it.
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
    /// The architecture it must be for.
    pub architecture: Architecture,
    /// A directory on a disk with space for the unpacked application. Nothing is left in it.
    pub scratch: &'a Path,
    /// Size limits.
    pub limits: Limits,
    /// If given: the latest modification time, in seconds since 1970 (`SOURCE_DATE_EPOCH`). Later ones are set to it.
    pub clamp_mtime: Option<i64>,
}

/// An application that has been read.
#[derive(Debug)]
pub struct Application {
    /// Its root.
    pub tree: Tree,
    /// The run configuration of its image; empty for a directory.
    pub config: ImageConfig,
    /// Notes on what was left out or added.
    pub notes: Notes,
    /// Its origin.
    pub record: ApplicationRecord,
    architecture: Architecture,
    clamp_mtime: Option<i64>,
}

/// The other inputs of an artifact.
#[derive(Clone, Debug)]
pub struct Pack<'a> {
    /// The manifest, resolved against the application.
    pub manifest: &'a Manifest,
    /// The digest of the manifest's source, if it was in a file.
    pub manifest_source: Option<Digest>,
    /// The directory with the release of the operating system.
    pub os: &'a Path,
    /// The form of the root in ramdisk 2.
    pub root: RootForm,
    /// Number of compression threads. The output does not depend on it.
    pub workers: NonZeroUsize,
    /// The program that packs it.
    pub tool: ToolRecord,
    /// The key and certificate that sign it for AWS Nitro, if any.
    pub signer: Option<&'a Signer>,
    /// The path of the artifact.
    pub output: &'a Path,
    /// Once set, the build is cancelled and leaves nothing behind.
    pub stop: &'a AtomicBool,
}

/// Why a build failed. [`BuildError::responsibility`] returns who must act.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The input is not of the stated form, or not for this architecture.
    #[error("the image {} cannot be used", .path.display())]
    Input {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        error: OciError,
    },
    /// A layer is refused.
    #[error("layer {number} of {count} ({digest}) is refused")]
    Layer {
        /// The number of the layer, from 1.
        number: usize,
        /// The number of layers.
        count: usize,
        /// Its digest, or that of the tar in it.
        digest: Digest,
        /// The cause.
        #[source]
        error: Box<LayerError>,
    },
    /// The directory cannot be used.
    #[error("the directory {} cannot be used", .path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        error: DirectoryError,
    },
    /// The manifest has no canonical form.
    #[error("the manifest cannot be encoded")]
    Manifest(#[source] ModelError),
    /// The release of the operating system cannot be used.
    #[error("the operating system in {} cannot be used", .path.display())]
    Os {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        error: OsError,
    },
    /// The ramdisk with the application was not written.
    #[error("the application's ramdisk cannot be written")]
    Ramdisk(#[source] WriteError),
    /// The file system with the application was not written.
    #[error("the application's file system cannot be written")]
    Erofs(#[source] erofs::Error),
    /// A signature for AWS Nitro was requested, and the release does not support AWS Nitro.
    #[error("this Cloister OS does not support AWS Nitro, so there is nothing to sign")]
    NoNitro,
    /// It cannot be signed.
    #[error("the image cannot be signed")]
    Sign(#[source] eif::Error),
    /// The artifact cannot be written.
    #[error("the artifact cannot be written")]
    Artifact(#[from] ArtifactError),
    /// The caller cancelled it.
    #[error("the build was cancelled")]
    Cancelled,
    /// The scratch directory cannot be used.
    #[error("the scratch directory {} cannot be used", .path.display())]
    Scratch {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Application {
    /// The image that a manifest is resolved against.
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
