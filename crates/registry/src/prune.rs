//! Removes pulled blobs that no build has used for some time.
//!
//! Invariant: nothing is removed while a pull or a build uses the cache; only blobs and files of killed pulls are removed.

use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use super::cache::{PARTIAL, blobs};

/// How much was removed, and how much is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Number of removed blobs.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Number of remaining blobs.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// Why a cache was not pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A pull or a build is using it.
    #[error("{} is in use by a build", .root.display())]
    InUse {
        /// The cache.
        root: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot prune {}", .root.display())]
    Io {
        /// The cache.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Removes every blob of the cache at `root` that has not been used for `unused` before `now`.
pub fn prune(root: &Path, unused: Duration, now: SystemTime) -> Result<Pruned, PruneError> {
    let blobs = blobs(root);
    let failed = |source| PruneError::Io { root: root.to_owned(), source };
    let directory = match File::open(&blobs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Pruned::default()),
        opened => opened.map_err(failed)?,
    };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(PruneError::InUse { root: root.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    }
    let mut pruned = Pruned::default();
    for entry in std::fs::read_dir(&blobs).map_err(failed)? {
        consider(&entry.map_err(failed)?, unused, now, &mut pruned).map_err(failed)?;
    }
    Ok(pruned)
}

fn consider(entry: &DirEntry, unused: Duration, now: SystemTime, pruned: &mut Pruned) -> std::io::Result<()> {
    let metadata = entry.metadata()?;
    let left = entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes());
    // A time in the future comes from a wrong clock: such a blob counts as just used.
    let age = now.duration_since(metadata.modified()?).unwrap_or_default();
    if metadata.is_file() && (left || age >= unused) {
        std::fs::remove_file(entry.path())?;
        pruned.removed += 1;
        pruned.removed_bytes += metadata.len();
    } else {
        pruned.kept += 1;
        pruned.kept_bytes += metadata.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use cloister_image::digest::Digest;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn blobs_that_were_not_used_for_the_given_time_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, fresh) = (Digest::of(b"old"), Digest::of(b"fresh!"));
        let cache = Cache::new(dir.path().to_owned()).unwrap();
        cache.store_bytes(&old, b"old").unwrap();
        cache.store_bytes(&fresh, b"fresh!").unwrap();
        let now = SystemTime::now();
        let path = |digest: &Digest| blobs(dir.path()).join(digest.hex());
        for digest in [&old, &fresh] {
            File::options().append(true).open(path(digest)).unwrap().set_modified(now - 2 * DAY).unwrap();
        }
        assert!(cache.has_document(&fresh), "this counts as a use");
        let busy = prune(dir.path(), DAY, now).unwrap_err();
        assert!(matches!(busy, PruneError::InUse { .. }), "{busy:?}");
        drop(cache);
        // A process that another test starts has all descriptors, and with them the lock, until it calls exec.
        let pruned = (0..100).find_map(|_| {
            std::thread::park_timeout(Duration::from_millis(20));
            prune(dir.path(), DAY, now).ok()
        });
        assert_eq!(pruned, Some(Pruned { removed: 1, removed_bytes: 3, kept: 1, kept_bytes: 6 }));
        assert!(!path(&old).exists() && path(&fresh).exists());
    }

    #[test]
    fn a_missing_cache_has_nothing_to_prune() {
        let pruned = prune(Path::new("/no/such/cache"), DAY, SystemTime::now()).unwrap();
        assert_eq!(pruned, Pruned::default());
    }
}
