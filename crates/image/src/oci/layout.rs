//! Image layouts: a directory with an index and blobs named by their digests.
//!
//! Invariant: a document's bytes are hashed before they are parsed. Layers are hashed while they are applied.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::model::{self, Descriptor, Document, Index, media};
use super::{Blob, OciError};
use crate::digest::Digest;
use crate::limits::{self, MAX_DOCUMENT};

/// The file that marks a layout.
pub(super) const MARK: &str = "oci-layout";
/// The file with a layout's index.
pub(super) const INDEX: &str = "index.json";

/// The purpose of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An index or an image's manifest.
    Manifest,
    /// An image's configuration.
    Configuration,
    /// A layer.
    Layer,
}

impl Role {
    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Configuration => "configuration",
            Self::Layer => "layer",
        }
    }
}

/// A store of blobs that are found by their digest.
pub trait Store {
    /// The blob, or `None` if it is missing. The caller checks its size and digest.
    fn find(&self, digest: &Digest, role: Role) -> Result<Option<Blob>, OciError>;
}

/// A directory with blobs, as in a layout.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Opens a complete layout: one with `oci-layout` and `index.json`.
    pub fn open(root: &Path) -> Result<Self, OciError> {
        let layout = Self { root: root.to_owned() };
        let mark = layout.file(MARK)?.ok_or(OciError::NotALayout(MARK))?;
        check_mark(&bounded(&mark, &layout.root)?)?;
        Ok(layout)
    }

    /// Uses only the blobs of a directory: a cache.
    #[must_use]
    pub fn of_blobs(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The index, which has no digest to check.
    pub fn index(&self) -> Result<Index, OciError> {
        let blob = self.file(INDEX)?.ok_or(OciError::NotALayout(INDEX))?;
        index(&bounded(&blob, &self.root)?)
    }

    /// The path of a blob's file, whether it exists or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn file(&self, name: &str) -> Result<Option<Blob>, OciError> {
        open(&self.root.join(name))
    }
}

impl Store for Layout {
    fn find(&self, digest: &Digest, _role: Role) -> Result<Option<Blob>, OciError> {
        open(&self.path(digest))
    }
}

/// Checks the content of `oci-layout`.
pub(super) fn check_mark(bytes: &[u8]) -> Result<(), OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mark {
        image_layout_version: String,
    }
    let mark: Mark = model::parse(bytes, MARK)?;
    if mark.image_layout_version == "1.0.0" { Ok(()) } else { Err(OciError::NotALayout("its version")) }
}

/// Parses a layout's index.
pub(super) fn index(bytes: &[u8]) -> Result<Index, OciError> {
    match Document::parse(bytes, media::INDEX)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(OciError::NotALayout(INDEX)),
    }
}

fn open(path: &Path) -> Result<Option<Blob>, OciError> {
    let host = |source| OciError::Host { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => Blob::whole(file).map(Some).map_err(host),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(host(error)),
    }
}

/// A blob, after checking its size against its descriptor.
pub(super) fn blob(store: &impl Store, descriptor: &Descriptor, role: Role) -> Result<Blob, OciError> {
    let digest = descriptor.digest;
    let blob = store.find(&digest, role)?.ok_or(OciError::Missing { digest, what: role.name() })?;
    if blob.len() == descriptor.size {
        Ok(blob)
    } else {
        Err(OciError::Size { digest, expected: descriptor.size, found: blob.len() })
    }
}

/// A document's bytes, with their size and digest checked.
pub(crate) fn document(store: &impl Store, descriptor: &Descriptor, role: Role) -> Result<Vec<u8>, OciError> {
    verified(&blob(store, descriptor, role)?, descriptor.digest)
}

/// A document's bytes, with their digest checked.
pub(super) fn verified(blob: &Blob, expected: Digest) -> Result<Vec<u8>, OciError> {
    let bytes = bounded(blob, Path::new(&expected.to_string()))?;
    let found = Digest::of(&bytes);
    if found == expected { Ok(bytes) } else { Err(OciError::Digest { expected, found }) }
}

/// The bytes of a document, after checking its length.
pub(super) fn bounded(blob: &Blob, path: &Path) -> Result<Vec<u8>, OciError> {
    limits::check("bytes of a document", blob.len(), MAX_DOCUMENT).map_err(OciError::Limit)?;
    blob.bytes().map_err(|source| OciError::Host { path: path.to_owned(), source })
}
