//! A file that starts over when it is full, keeping the one before.
//!
//! Its law: what is appended in one call stays in one file, and a write that fails leaves nothing of itself. Whatever fails
//! is tried again with the next call: a log whose disk was full for a while goes on.

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
    /// Bytes in `file`; [`DAMAGED`] where that is not known.
    length: u64,
}

/// The length of a file that holds a part of a write and could not be cut: it is left behind with the next call.
const DAMAGED: u64 = u64::MAX;

impl Rotating {
    /// A new, empty log of this name in `home` that starts over at `limit` bytes.
    pub(crate) fn create(home: Home, name: &'static str, limit: u64) -> io::Result<Self> {
        let dir = home.dir();
        match fs::remove_file(dir.at(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        // A new file, so that it has one writer: who still writes what had the name before keeps that.
        let file = File::create_new(dir.at(name))?;
        Ok(Self { home, name, limit, file, length: 0 })
    }

    /// Appends `bytes`. After an error the log is as it was before, and the next call tries again whatever failed.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let dir = self.home.dir();
        if !dir.has(&self.file, self.name) {
            self.start_again(&dir)?;
        } else if self.is_full() {
            self.start_over(&dir)?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.take_back();
            return Err(error);
        }
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Does `work` with the log's path, if the next call of [`Self::append`] starts over and gives up the file before.
    pub(crate) fn before_it_starts_over(&self, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let dir = self.home.dir();
        if self.is_full() && dir.has(&self.file, self.name) { work(&dir.at(self.name)) } else { Ok(()) }
    }

    const fn is_full(&self) -> bool {
        self.length >= self.limit
    }

    /// Goes on with an empty file. It is made first, because that is what fails on a full disk; a step that was done before
    /// another failed does no harm when it is done again.
    fn start_over(&mut self, dir: &Dir) -> io::Result<()> {
        let path = dir.at(self.name);
        let coming = path.with_added_extension("new");
        let file = File::create(&coming)?;
        fs::rename(&path, older(&path))?;
        fs::rename(&coming, &path)?;
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

    /// Goes on in a new file where the old one was moved or removed. Until its folder is there again, nobody can read what
    /// is said, and it takes no more room than what can be read.
    fn start_again(&mut self, dir: &Dir) -> io::Result<()> {
        // Only a new one: what has this name now may be another enclave's.
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

    fn home(path: &Path) -> Home {
        Home::new(Dir::open(path).unwrap())
    }

    #[test]
    fn a_full_log_starts_over_and_keeps_the_one_before() {
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
    fn a_log_whose_file_is_gone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", 4).unwrap();
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
    fn a_log_whose_folder_was_removed_goes_on_in_the_next_and_in_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path().join("web"), dir.path().join("web/log"));
        fs::create_dir(&folder).unwrap();
        let home = home(&folder);
        let mut log = Rotating::create(home.clone(), "log", 4).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        // The name is another enclave's before the removal is noticed.
        fs::create_dir(&folder).unwrap();
        for _ in 0..3 {
            log.append(b"lost").unwrap();
            assert!(!path.exists(), "two enclaves write one log");
        }
        home.move_to(Dir::open(&folder).unwrap());
        log.append(b"on").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"on");
    }

    #[test]
    fn a_log_whose_name_has_another_file_leaves_that_alone() {
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
    fn a_full_log_leaves_the_file_of_another_where_it_is() {
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
