//! A log file that is rotated when it is full; the previous file is kept.
//!
//! Invariant: bytes appended in one call are in one file, and a failed write leaves no partial data. A failed step is retried by
//! the next call: the log continues after its disk was full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::state::{Dir, Home};

/// The writer of a log.
#[derive(Debug)]
pub(crate) struct Rotating {
    home: Home,
    name: &'static str,
    limit: u64,
    file: File,
    /// Bytes in `file`; [`DAMAGED`] if unknown.
    length: u64,
}

/// The length of a file with a partial write that could not be truncated: the next call starts a new file.
const DAMAGED: u64 = u64::MAX;

impl Rotating {
    /// A new, empty log of this name in `home` that is rotated at `limit` bytes.
    pub(crate) fn create(home: Home, name: &'static str, limit: u64) -> io::Result<Self> {
        let dir = home.dir();
        match fs::remove_file(dir.at(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        // A new file, so that it has a single writer: a process that still writes the removed file cannot write to this one.
        let file = File::create_new(dir.at(name))?;
        Ok(Self { home, name, limit, file, length: 0 })
    }

    /// Appends `bytes`. After an error the log is unchanged, and the next call retries the failed step.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let dir = self.home.dir();
        if !dir.has(&self.file, self.name) {
            self.recreate(&dir)?;
        } else if self.is_full() {
            self.rotate(&dir)?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.take_back();
            return Err(error);
        }
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Calls `work` with the log's path, if the next call of [`Self::append`] rotates the log and discards the older file.
    pub(crate) fn before_rotation(&self, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let dir = self.home.dir();
        if self.is_full() && dir.has(&self.file, self.name) { work(&dir.at(self.name)) } else { Ok(()) }
    }

    const fn is_full(&self) -> bool {
        self.length >= self.limit
    }

    /// Continues with an empty file. It is created first, because that step fails on a full disk; repeating the steps after a
    /// failure of a later one is harmless.
    fn rotate(&mut self, dir: &Dir) -> io::Result<()> {
        let path = dir.at(self.name);
        let new = path.with_added_extension("new");
        let file = File::create(&new)?;
        fs::rename(&path, older(&path))?;
        fs::rename(&new, &path)?;
        self.file = file;
        self.length = 0;
        Ok(())
    }

    /// Removes the partial data of a failed write.
    fn take_back(&mut self) {
        let cut = self.file.set_len(self.length);
        let back = cut.and_then(|()| io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length)));
        if back.is_err() {
            self.length = DAMAGED;
        }
    }

    /// Continues in a new file after the old one was moved or removed. Until the directory exists again, the log cannot be read,
    /// and its size stays within the same limit.
    fn recreate(&mut self, dir: &Dir) -> io::Result<()> {
        // Only a new file: an existing one of this name may belong to another enclave.
        if let Ok(file) = File::create_new(dir.at(self.name)) {
            self.file = file;
            self.length = 0;
        } else if self.is_full() {
            self.file.set_len(0)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(0))?;
            self.length = 0;
        }
        Ok(())
    }
}

impl AsFd for Rotating {
    /// The current file.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The path of the previous file of the log at `path`.
pub(crate) fn older(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(path: &Path) -> Home {
        Home::new(Dir::open(path).unwrap())
    }

    #[test]
    fn a_full_log_is_rotated_and_the_previous_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 4).unwrap();
        for piece in ["aaaa", "bb", "bbb", "c"] {
            log.append(piece.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(older(&path)).unwrap(), b"bbbbb");
        assert_eq!(fs::read(&path).unwrap(), b"c");
    }

    #[test]
    fn a_log_continues_after_its_file_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 4).unwrap();
        log.append(b"aaaa").unwrap();
        // As after a rotation that moved the file and could not create the next one.
        fs::rename(&path, older(&path)).unwrap();
        log.append(b"bb").unwrap();
        assert_eq!(fs::read(older(&path)).unwrap(), b"aaaa");
        assert_eq!(fs::read(&path).unwrap(), b"bb");
    }

    #[test]
    fn a_failed_rotation_is_retried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 4).unwrap();
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

    #[test]
    fn a_log_whose_directory_was_removed_continues_only_in_its_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, path) = (dir.path().join("web"), dir.path().join("web/log"));
        fs::create_dir(&directory).unwrap();
        let home = home(&directory);
        let mut log = Rotating::create(home.clone(), "log", 4).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        // Another enclave takes the name before the removal is noticed.
        fs::create_dir(&directory).unwrap();
        for _ in 0..3 {
            log.append(b"lost").unwrap();
            assert!(!path.exists(), "two enclaves write one log");
        }
        home.move_to(Dir::open(&directory).unwrap());
        log.append(b"on").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"on");
    }

    #[test]
    fn a_foreign_file_of_the_same_name_is_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 100).unwrap();
        fs::remove_file(&path).unwrap();
        log.append(b"again").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"again");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        log.append(b" and on").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"of another");
    }

    #[test]
    fn a_full_log_does_not_move_a_foreign_file_of_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 4).unwrap();
        log.append(b"aaaa").unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        for _ in 0..3 {
            log.append(b"bbbb").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"of another");
        assert!(!older(&path).exists());
    }
}
