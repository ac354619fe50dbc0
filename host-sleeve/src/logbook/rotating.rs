//! A file that starts over when it is full, keeping the one before.
//!
//! Its law: what is appended in one call stays in one file, and a write that fails leaves nothing of itself. Whatever fails
//! is tried again with the next call: a log whose disk was full for a while goes on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The writer of a log.
#[derive(Debug)]
pub(crate) struct Rotating {
    path: PathBuf,
    limit: u64,
    file: File,
    /// Bytes in `file`; [`DAMAGED`] where that is not known.
    length: u64,
}

/// The length of a file that holds a part of a write and could not be cut: it is left behind with the next call.
const DAMAGED: u64 = u64::MAX;

impl Rotating {
    /// A new, empty log at `path` that starts over at `limit` bytes.
    pub(crate) fn create(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = File::create(&path)?;
        Ok(Self { path, limit, file, length: 0 })
    }

    /// Whether the next call starts over, which gives up the file before.
    pub(crate) const fn is_full(&self) -> bool {
        self.length >= self.limit
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`. After an error the log is as it was before, and the next call tries again whatever failed.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_full() {
            self.start_over()?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.take_back();
            return Err(error);
        }
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Goes on with an empty file. It is made first, because that is what fails on a full disk; a step that was done before
    /// another failed does no harm when it is done again.
    fn start_over(&mut self) -> io::Result<()> {
        let coming = self.path.with_added_extension("new");
        let file = File::create(&coming)?;
        match fs::rename(&self.path, older(&self.path)) {
            // Moved by a call that failed at the next step, or removed by somebody.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        fs::rename(&coming, &self.path)?;
        self.file = file;
        self.length = 0;
        Ok(())
    }

    /// Removes what a write that failed has left.
    fn take_back(&mut self) {
        let cut = self.file.set_len(self.length);
        let back = cut.and_then(|()| io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length)));
        if back.is_err() {
            self.length = DAMAGED;
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
    fn a_log_whose_file_is_gone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(path.clone(), 4).unwrap();
        log.append(b"aaaa").unwrap();
        // As after a turn that moved the file and could not make the next.
        fs::rename(&path, older(&path)).unwrap();
        log.append(b"bb").unwrap();
        assert_eq!(fs::read(older(&path)).unwrap(), b"aaaa");
        assert_eq!(fs::read(&path).unwrap(), b"bb");
    }

    #[test]
    fn a_turn_that_failed_is_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(path.clone(), 4).unwrap();
        log.append(b"aaaa").unwrap();
        for blocked in ["log.new", "log.1"].map(|name| dir.path().join(name)) {
            fs::create_dir(&blocked).unwrap();
            log.append(b"lost").unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"aaaa", "as it was before");
            fs::remove_dir(&blocked).unwrap();
        }
        log.append(b"bb").unwrap();
        assert_eq!(
            (fs::read(older(&path)).unwrap(), fs::read(&path).unwrap()),
            (b"aaaa".to_vec(), b"bb".to_vec())
        );
    }
}
