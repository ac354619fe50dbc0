//! A log file that is rotated when it is full; the previous file is kept.
//!
//! Invariant: a file only grows, so that a reader at any position of it stays in step. What a failed write leaves incomplete is
//! completed before anything else is written: a log of records consists of whole records, and in a log of text each loss is
//! marked. A failed step is retried by the next call: the log continues after its disk was full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use cloister_wire::frame::{Decoder, HEADER, HOST_LIMIT};

use crate::state::{Dir, Home};

/// The line that marks where text is missing.
const MISSING: &[u8] = b"cloister: text is missing here\n";

/// What a log consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Frames of the log channel. The numbers of the records show which ones are missing.
    Records,
    /// Lines.
    Text,
}

/// The writer of a log.
#[derive(Debug)]
pub(crate) struct Rotating {
    home: Home,
    name: &'static str,
    content: Content,
    limit: u64,
    file: File,
    /// Bytes in `file`.
    length: u64,
    /// The last byte in `file`.
    last: Option<u8>,
    /// What must be written before anything else: the rest of a record, or the mark for missing text.
    pending: Vec<u8>,
}

impl Rotating {
    /// A new, empty log of this name in `home` that is rotated at `limit` bytes.
    pub(crate) fn create(home: Home, name: &'static str, content: Content, limit: u64) -> io::Result<Self> {
        let dir = home.dir();
        match fs::remove_file(dir.at(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        // A new file, so that it has a single writer: a process that still writes the removed file cannot write to this one.
        let file = File::create_new(dir.at(name))?;
        Ok(Self { home, name, content, limit, file, length: 0, last: None, pending: Vec::new() })
    }

    /// Appends `bytes`: whole records, or text. After an error, some or all of them are missing, and the next call retries the
    /// failed step.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.prepare().inspect_err(|_| self.mark_missing())?;
        let (written, result) = self.write(bytes);
        if result.is_err() {
            match self.content {
                Content::Records => self.pending = rest_of_record(bytes, written).to_vec(),
                Content::Text => self.mark_missing(),
            }
        }
        result
    }

    /// Calls `work` with the log's path, if the next call of [`Self::append`] rotates the log and discards the older file.
    pub(crate) fn before_rotation(&self, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let dir = self.home.dir();
        let pending = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        let is_full = self.length.saturating_add(pending) >= self.limit;
        if is_full && dir.has(&self.file, self.name) { work(&dir.at(self.name)) } else { Ok(()) }
    }

    const fn is_full(&self) -> bool {
        self.length >= self.limit
    }

    /// Makes sure that the file is in place, is not full, and has nothing incomplete.
    fn prepare(&mut self) -> io::Result<()> {
        let dir = self.home.dir();
        if !dir.has(&self.file, self.name) {
            self.recreate(&dir)?;
        }
        if self.content == Content::Records {
            self.complete()?;
        }
        if self.is_full() && dir.has(&self.file, self.name) {
            self.rotate(&dir)?;
        }
        // The mark belongs in the new file: while a full file cannot be rotated, it does not grow.
        self.complete()
    }

    /// Writes what is pending.
    fn complete(&mut self) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let (written, result) = self.write(&pending);
        self.pending = pending.split_off(written.min(pending.len()));
        result
    }

    /// Writes `bytes`. Returns how many were written before a failure.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut rest = bytes;
        let result = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.file.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = bytes.len().saturating_sub(rest.len());
        self.length = self.length.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        self.last = bytes.get(..written).and_then(<[u8]>::last).copied().or(self.last);
        (written, result)
    }

    /// Marks that text is missing, unless a mark is already pending.
    fn mark_missing(&mut self) {
        if self.content == Content::Text && self.pending.is_empty() {
            let newline: &[u8] = if matches!(self.last, None | Some(b'\n')) { b"" } else { b"\n" };
            self.pending = [newline, MISSING].concat();
        }
    }

    /// Continues with an empty file. It is created first, because that step fails on a full disk; repeating the steps after a
    /// failure of a later one is harmless.
    fn rotate(&mut self, dir: &Dir) -> io::Result<()> {
        let path = dir.at(self.name);
        let new = path.with_added_extension("new");
        let file = File::create(&new)?;
        fs::rename(&path, older(&path))?;
        fs::rename(&new, &path)?;
        self.begin(file);
        Ok(())
    }

    /// Continues in a new file after the old one was moved or removed. Until the directory exists again, the log cannot be read:
    /// text and records beyond the same limit are lost.
    fn recreate(&mut self, dir: &Dir) -> io::Result<()> {
        // Only a new file: an existing one of this name may belong to another enclave.
        match File::create_new(dir.at(self.name)) {
            Ok(file) => self.begin(file),
            Err(error) if self.is_full() => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    /// Continues in `file`, which is empty.
    fn begin(&mut self, file: File) {
        self.file = file;
        self.length = 0;
        self.last = None;
        // The rest of a record belongs in the old file; a mark is written as a whole.
        if !std::mem::take(&mut self.pending).is_empty() {
            self.mark_missing();
        }
    }
}

/// What is missing of the record in whose middle the first `written` bytes of `records` end.
fn rest_of_record(records: &[u8], written: usize) -> &[u8] {
    let mut decoder = Decoder::new(HOST_LIMIT);
    decoder.push(records);
    let mut end: usize = 0;
    while end < written {
        match decoder.next_frame() {
            Ok(Some(body)) => end = end.saturating_add(HEADER).saturating_add(body.len()),
            // Not a record: nothing can complete it.
            _ => return &[],
        }
    }
    records.get(written..end).unwrap_or_default()
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
    use crate::state::full_disk;

    fn home(path: &Path) -> Home {
        Home::new(Dir::open(path).unwrap())
    }

    #[test]
    fn a_full_log_is_rotated_and_the_previous_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", Content::Records, 4).unwrap();
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
        let mut log = Rotating::create(home(dir.path()), "log", Content::Records, 4).unwrap();
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
        let mut log = Rotating::create(home(dir.path()), "log", Content::Records, 4).unwrap();
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
        let mut log = Rotating::create(home.clone(), "log", Content::Records, 4).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        // Another enclave takes the name before the removal is noticed.
        fs::create_dir(&directory).unwrap();
        log.append(b"lost").unwrap();
        for _ in 0..3 {
            log.append(b"lost").expect_err("a file that cannot be read must not grow or be emptied");
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
        let mut log = Rotating::create(home(dir.path()), "log", Content::Records, 100).unwrap();
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
        let mut log = Rotating::create(home(dir.path()), "log", Content::Records, 4).unwrap();
        log.append(b"aaaa").unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        for _ in 0..3 {
            log.append(b"bbbb").unwrap_err();
        }
        assert_eq!(fs::read(&path).unwrap(), b"of another");
        assert!(!older(&path).exists());
    }

    #[test]
    fn text_that_a_full_disk_has_lost_is_marked_on_a_line_of_its_own() {
        if !full_disk::is_alone(
            module_path!(),
            "text_that_a_full_disk_has_lost_is_marked_on_a_line_of_its_own",
        ) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut log = Rotating::create(home(dir.path()), "log", Content::Text, 100).unwrap();
        full_disk::file_limit(Some(6));
        log.append(b"one\ntwo\n").unwrap_err();
        log.append(b"three\n").unwrap_err();
        full_disk::file_limit(None);
        log.append(b"four\n").unwrap();
        let mark = String::from_utf8_lossy(MISSING);
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), format!("one\ntw\n{mark}four\n"));
    }

    #[test]
    fn a_full_log_of_text_that_cannot_be_rotated_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(home(dir.path()), "log", Content::Text, 4).unwrap();
        log.append(b"one\n").unwrap();
        fs::create_dir(dir.path().join("log.new")).unwrap();
        for _ in 0..3 {
            log.append(b"lost\n").unwrap_err();
        }
        assert_eq!(fs::read(&path).unwrap(), b"one\n");
        fs::remove_dir(dir.path().join("log.new")).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), [MISSING, b"two\n"].concat());
    }
}
