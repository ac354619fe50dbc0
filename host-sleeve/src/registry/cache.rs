//! Blobs on this host, by their digests.
//!
//! Its law: a file under a digest's name was whole and right when it got the name. Two processes may fill it at once: each
//! writes its own file, and the last one to finish gives it the name again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{Layout, Role, Store};
use tempfile::NamedTempFile;

use super::fault::RegistryFault;

/// A directory with `blobs/sha256`.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    layout: Layout,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Result<Self, RegistryFault> {
        let cache = Self { layout: Layout::of_blobs(&root), root };
        std::fs::create_dir_all(cache.blobs()).map_err(|source| cache.fault(source))?;
        Ok(cache)
    }

    /// The blobs, to be read.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether a document is there. One that a failing disk has changed counts as missing, and is fetched again.
    pub(super) fn has_document(&self, digest: &Digest) -> bool {
        let blob = self.layout.find(digest, Role::Manifest).ok().flatten();
        blob.filter(|blob| blob.len() <= MAX_DOCUMENT)
            .and_then(|blob| blob.bytes().ok())
            .is_some_and(|bytes| Digest::of(&bytes) == *digest)
    }

    /// Whether a layer of this size is there. Its bytes are hashed when it is unpacked.
    pub(super) fn has_layer(&self, digest: &Digest, size: u64) -> bool {
        let blob = self.layout.find(digest, Role::Layer).ok().flatten();
        blob.is_some_and(|blob| blob.len() == size)
    }

    /// Keeps bytes whose digest was checked.
    pub(super) fn keep_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryFault> {
        let mut file = self.start()?;
        file.as_file_mut().write_all(bytes).map_err(|source| self.fault(source))?;
        self.keep(digest, file)
    }

    /// A file to be filled. It is gone if it is not kept.
    pub(super) fn start(&self) -> Result<NamedTempFile, RegistryFault> {
        let builder = tempfile::Builder::new().prefix(".partial-").tempfile_in(self.blobs());
        builder.map_err(|source| self.fault(source))
    }

    /// Gives a file with checked content its name.
    pub(super) fn keep(&self, digest: &Digest, file: NamedTempFile) -> Result<(), RegistryFault> {
        let settle = |file: NamedTempFile| -> io::Result<File> {
            file.as_file().sync_all()?;
            Ok(file.persist(self.layout.path(digest))?)
        };
        settle(file).map(drop).map_err(|source| self.fault(source))
    }

    /// The fault of writing here.
    pub(super) fn fault(&self, source: io::Error) -> RegistryFault {
        RegistryFault::Cache { path: self.root.clone(), source }
    }

    fn blobs(&self) -> PathBuf {
        Path::new(&self.root).join("blobs/sha256")
    }
}
