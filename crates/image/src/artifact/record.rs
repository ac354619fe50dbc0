//! The build record: the digest of everything an enclave was built from.
//!
//! Invariant: it contains nothing of the build machine, the time or the user. Builds of the same inputs have the same
//! record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The version of this format.
pub const VERSION: u32 = 1;

/// The inputs and outputs of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The program that built it.
    pub tool: ToolRecord,
    /// The application's image.
    pub application: ApplicationRecord,
    /// The release of the operating system.
    pub os: OsRecord,
    /// The digest of the manifest's source, if it was in a file.
    pub manifest_source: Option<Digest>,
    /// The form of the application's root in ramdisk 2.
    pub root: RootForm,
    /// If present: modification times later than this, in seconds since 1970, were set to it.
    pub clamp_mtime: Option<i64>,
    /// Every other part, by its title.
    pub outputs: BTreeMap<String, Output>,
}

/// The program that built an enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Where the application came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ApplicationRecord {
    /// A container image.
    Image {
        /// The name in a registry, without a tag, if it came from one: with the digest, it locates the image again.
        repository: Option<String>,
        /// The manifest's digest. `None` for an archive in Docker's older format, which has none.
        manifest: Option<Digest>,
        /// The configuration's digest.
        config: Digest,
        /// The layers from the lowest up.
        layers: Vec<LayerRecord>,
    },
    /// A directory.
    Directory {
        /// The digest of its tree ([`crate::tree::Tree::digest`]).
        tree: Digest,
    },
}

impl ApplicationRecord {
    /// The digest that identifies it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Image { manifest, config, .. } => manifest.unwrap_or(*config),
            Self::Directory { tree } => *tree,
        }
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRecord {
    /// The digest of the blob, if the image states it.
    pub digest: Option<Digest>,
    /// The digest of the tar inside.
    pub diff_id: Digest,
}

/// The release of the operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsRecord {
    /// Its version.
    pub version: String,
    /// The digest of its record, which names everything else.
    pub record: Digest,
}

/// The form of the application's root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootForm {
    /// As files, unpacked into memory at boot.
    Plain,
    /// As a read-only file system that is mounted in place.
    #[default]
    Erofs,
}

/// A part that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}
