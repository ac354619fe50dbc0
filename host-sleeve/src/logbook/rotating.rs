//! A file that starts over when it is full, keeping the one before.
//!
//! Its law: what is appended in one call stays in one file, and a write that fails leaves nothing of itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The writer of a log.
#[derive(Debug)]
pub(crate) struct Rotating {
    path: PathBuf,
    limit: u64,
    file: File,
    length: u64,
}

impl Rotating {
    /// A new, empty log at `path` that starts over at `limit` bytes.
    pub(crate) fn create(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = File::create(&path)?;
        Ok(Self { path, limit, file, length: 0 })
    }

    /// Appends `bytes`. After an error the log is as it was before.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length >= self.limit {
            fs::rename(&self.path, older(&self.path))?;
            self.file = File::create(&self.path)?;
            self.length = 0;
        } else if !self.is_in_place() {
            self.start_again();
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Whether the file is still the one at its path.
    fn is_in_place(&self) -> bool {
        let (opened, named) = (self.file.metadata(), fs::symlink_metadata(&self.path));
        opened.is_ok_and(|opened| {
            named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()))
        })
    }

    /// Goes on in a new file where the old one was removed. Until its folder is there again, nobody can read what is said.
    fn start_again(&mut self) {
        // Only a new one: what has this name now may be another enclave's.
        if let Ok(file) = File::create_new(&self.path) {
            self.file = file;
            self.length = 0;
        }
    }
}

impl AsFd for Rotating {
    /// The file that is written now.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The name of the file before the one at `path`.
pub(crate) fn older(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_starts_over_and_keeps_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(path.clone(), 4).unwrap();
        for piece in ["aaaa", "bb", "bbb", "c"] {
            log.append(piece.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(older(&path)).unwrap(), b"bbbbb");
        assert_eq!(fs::read(&path).unwrap(), b"c");
    }

    #[test]
    fn a_log_whose_folder_was_removed_goes_on_when_the_folder_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("web");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("log");
        let mut log = Rotating::create(path.clone(), 100).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        log.append(b"to nobody").unwrap();
        fs::create_dir(&folder).unwrap();
        log.append(b"again").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"again");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        log.append(b" and on").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"of another");
    }
}
