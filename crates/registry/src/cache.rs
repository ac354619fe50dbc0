//! The cache: blobs on this host, by their digests.
//!
//! Invariant: a file named after a digest was complete and verified when it got the name. Several processes may fill the cache
//! at the same time: each writes its own file, and the last one to finish replaces the others'. Files left by killed processes
//! are removed when no process is filling the cache: each holds a lock on the directory, which the kernel releases if it dies.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{Layout, Role, Store};
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::error::RegistryError;

/// The prefix of the names of incomplete files.
pub(super) const PARTIAL: &str = ".partial-";

/// A directory with `blobs/sha256`.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    layout: Layout,
    /// `None` if the file system has no locks.
    lock: Option<Lock>,
}

/// A shared lock on the directory, held by every process that uses its blobs. Released when dropped.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Result<Self, RegistryError> {
        let blobs = blobs(&root);
        let made = std::fs::create_dir_all(&blobs);
        // If the file system does not support locks, nothing is removed.
        let cache = Self { layout: Layout::of_blobs(&root), root, lock: lock(&blobs).ok() };
        made.map_err(|source| cache.error(source))?;
        Ok(cache)
    }

    /// The lock that prevents the blobs from being removed.
    pub(super) fn into_lock(self) -> Option<Lock> {
        self.lock
    }

    /// The blobs, for reading.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether the cache has a document. One that a failing disk has changed counts as missing, and is fetched again.
    pub(super) fn has_document(&self, digest: &Digest) -> bool {
        let blob = self.layout.find(digest, Role::Manifest).ok().flatten();
        let intact = blob
            .filter(|blob| blob.len() <= MAX_DOCUMENT)
            .and_then(|blob| blob.bytes().ok())
            .is_some_and(|bytes| Digest::of(&bytes) == *digest);
        intact && self.used(digest)
    }

    /// Whether the cache has a layer of this size. Its digest is checked when it is unpacked.
    pub(super) fn has_layer(&self, digest: &Digest, size: u64) -> bool {
        let blob = self.layout.find(digest, Role::Layer).ok().flatten();
        blob.is_some_and(|blob| blob.len() == size) && self.used(digest)
    }

    /// Records by the modification time that a blob was used now: unused ones can be pruned. Always returns true.
    fn used(&self, digest: &Digest) -> bool {
        let touch = |file: File| file.set_modified(SystemTime::now());
        // A cache that cannot be written can still be read.
        drop(File::options().append(true).open(self.layout.path(digest)).and_then(touch));
        true
    }

    /// Stores bytes whose digest was checked.
    pub(super) fn store_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let mut file = self.start()?;
        file.as_file_mut().write_all(bytes).map_err(|source| self.error(source))?;
        self.store(digest, file)
    }

    /// A new incomplete file. It is deleted when dropped, unless it is stored.
    pub(super) fn start(&self) -> Result<NamedTempFile, RegistryError> {
        let builder = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(self.blobs());
        builder.map_err(|source| self.error(source))
    }

    /// Renames a file with checked content to its digest.
    pub(super) fn store(&self, digest: &Digest, file: NamedTempFile) -> Result<(), RegistryError> {
        let settle = |file: NamedTempFile| -> io::Result<File> {
            file.as_file().sync_all()?;
            Ok(file.persist(self.layout.path(digest))?)
        };
        settle(file).map(drop).map_err(|source| self.error(source))
    }

    /// The error for a failed write to the cache.
    pub(super) fn error(&self, source: io::Error) -> RegistryError {
        RegistryError::Cache { path: self.root.clone(), source }
    }

    fn blobs(&self) -> PathBuf {
        blobs(&self.root)
    }
}

pub(super) fn blobs(root: &Path) -> PathBuf {
    root.join("blobs/sha256")
}

/// Takes a shared lock on the directory. If no other process holds it, files left by killed processes are removed first.
fn lock(blobs: &Path) -> io::Result<Lock> {
    let lock = File::open(blobs)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        for entry in std::fs::read_dir(blobs)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
                // A file that cannot be removed only takes up space.
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
    // There is a moment without a lock in between: another process may then remove leftovers, but ours do not exist yet.
    flock(&lock, FlockOperation::LockShared)?;
    Ok(Lock { _directory: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cache: &Cache) -> usize {
        std::fs::read_dir(cache.blobs()).unwrap().count()
    }

    #[test]
    fn files_of_killed_processes_are_removed_and_those_of_running_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Cache::new(dir.path().to_owned()).unwrap();
        let first = open();
        let left = first.start().unwrap().into_temp_path().keep().unwrap();
        assert!(left.is_file());
        let second = open();
        assert_eq!(names(&second), 1, "a file of a running process was removed");
        drop((first, second));
        // A process that another test starts has all descriptors, and with them the lock, until it calls exec.
        let third = (0..100).map(|_| open()).find(|third| names(third) == 0).unwrap();
        let _writes = third.start().unwrap();
        assert_eq!(names(&open()), 1);
    }
}
