//! Blobs on this host, by their digests.
//!
//! Its law: a file under a digest's name was whole and right when it got the name. Two processes may fill it at once: each
//! writes its own file, and the last one to finish gives it the name again. What the dead have left is removed when nobody
//! fills it: whoever does holds a lock on the directory, which the kernel takes back from the dead.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{Layout, Role, Store};
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::fault::RegistryFault;

/// What the name of a file begins with that is not whole yet.
pub(super) const PARTIAL: &str = ".partial-";

/// A directory with `blobs/sha256`.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    layout: Layout,
    /// `None` where the file system has no locks.
    lock: Option<Lock>,
}

/// The directory, locked together with everyone else who uses its blobs for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Result<Self, RegistryFault> {
        let blobs = blobs(&root);
        let made = std::fs::create_dir_all(&blobs);
        // Where a file system knows no locks, nothing is removed.
        let cache = Self { layout: Layout::of_blobs(&root), root, lock: lock(&blobs).ok() };
        made.map_err(|source| cache.fault(source))?;
        Ok(cache)
    }

    /// What keeps the blobs where they are.
    pub(super) fn into_lock(self) -> Option<Lock> {
        self.lock
    }

    /// The blobs, to be read.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether a document is there. One that a failing disk has changed counts as missing, and is fetched again.
    pub(super) fn has_document(&self, digest: &Digest) -> bool {
        let blob = self.layout.find(digest, Role::Manifest).ok().flatten();
        let sound = blob
            .filter(|blob| blob.len() <= MAX_DOCUMENT)
            .and_then(|blob| blob.bytes().ok())
            .is_some_and(|bytes| Digest::of(&bytes) == *digest);
        sound && self.used(digest)
    }

    /// Whether a layer of this size is there. Its bytes are hashed when it is unpacked.
    pub(super) fn has_layer(&self, digest: &Digest, size: u64) -> bool {
        let blob = self.layout.find(digest, Role::Layer).ok().flatten();
        blob.is_some_and(|blob| blob.len() == size) && self.used(digest)
    }

    /// Notes that a blob was used now, by its modification time: what nobody uses can be pruned. Always true.
    fn used(&self, digest: &Digest) -> bool {
        let touch = |file: File| file.set_modified(SystemTime::now());
        // A cache that cannot be written is still one that can be read.
        drop(File::options().append(true).open(self.layout.path(digest)).and_then(touch));
        true
    }

    /// Keeps bytes whose digest was checked.
    pub(super) fn keep_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryFault> {
        let mut file = self.start()?;
        file.as_file_mut().write_all(bytes).map_err(|source| self.fault(source))?;
        self.keep(digest, file)
    }

    /// A file to be filled. It is gone if it is not kept.
    pub(super) fn start(&self) -> Result<NamedTempFile, RegistryFault> {
        let builder = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(self.blobs());
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
        blobs(&self.root)
    }
}

pub(super) fn blobs(root: &Path) -> PathBuf {
    root.join("blobs/sha256")
}

/// Locks the directory together with everybody else who fills it. If there is nobody else, what the dead have left is
/// removed first.
fn lock(blobs: &Path) -> io::Result<Lock> {
    let lock = File::open(blobs)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        for entry in std::fs::read_dir(blobs)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
                // What cannot be removed takes room, no more.
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
    // A moment without any lock lies in between: then another one looks for leftovers, and ours are not there yet.
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
    fn what_the_dead_have_left_is_removed_and_what_the_living_write_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Cache::new(dir.path().to_owned()).unwrap();
        let first = open();
        let left = first.start().unwrap().into_temp_path().keep().unwrap();
        assert!(left.is_file());
        let second = open();
        assert_eq!(names(&second), 1, "the first one lives, and it may be its own");
        drop((first, second));
        // A process that another test starts has all descriptors until it is its program, and with them the lock.
        let third = (0..100).map(|_| open()).find(|third| names(third) == 0).unwrap();
        let _writes = third.start().unwrap();
        assert_eq!(names(&open()), 1);
    }
}
