//! Reads a log while it is being written.
//!
//! Invariant: it waits for events and never polls. inotify(7) reports new bytes, new files and a new record; the closing of the
//! sleeve's socket means that the log is complete.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use crate::state::Dir;
use crate::state::dir::open_file;

use super::kept::kept;
use super::rotating::older;

/// Size of a read in bytes.
const PIECE: usize = 64 * 1024;

/// The raw bytes of a log, the oldest file first.
#[derive(Debug)]
pub(crate) struct Reader {
    dir: Dir,
    name: &'static str,
    current: Option<File>,
    buffer: Vec<u8>,
}

/// What follows the end of a file.
enum Next {
    /// Nothing yet.
    End,
    /// More bytes in this file.
    Again,
    /// Another file.
    Fresh,
}

/// Wakes a follower.
#[derive(Debug)]
pub(crate) struct Wake {
    changes: OwnedFd,
    sleeve: Option<UnixStream>,
}

impl Reader {
    /// A reader of all stored files of the log of this name in `dir`.
    pub(crate) fn open(dir: &Dir, name: &'static str) -> Self {
        let path = dir.at(name);
        let oldest = [kept(&path), older(&path), path].iter().find_map(|file| open_file(file).ok());
        Self { dir: dir.clone(), name, current: oldest, buffer: vec![0; PIECE] }
    }

    /// The next bytes; empty if there are none yet. The flag states whether they begin a new file, before which records may
    /// have been lost.
    pub(crate) fn next_piece(&mut self) -> io::Result<(&[u8], bool)> {
        let mut fresh = false;
        loop {
            let count = match self.current.as_mut() {
                Some(file) => file.read(&mut self.buffer)?,
                None => 0,
            };
            if count == 0 {
                match self.next_file()? {
                    Next::End => {}
                    Next::Again => continue,
                    Next::Fresh => {
                        fresh = true;
                        continue;
                    }
                }
            }
            return Ok((self.buffer.get(..count).unwrap_or_default(), fresh));
        }
    }

    /// Opens the next file, if the writer has finished the current one.
    fn next_file(&mut self) -> io::Result<Next> {
        let path = self.dir.at(self.name);
        let opened = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::End),
            other => other?,
        };
        let Some(current) = self.current.as_mut() else {
            self.current = Some(opened);
            return Ok(Next::Fresh);
        };
        if current.metadata()?.ino() == opened.metadata()?.ino() {
            return Ok(Next::End);
        }
        // The writer may have appended between the last read and the rotation.
        let mut probe = [0; 1];
        let position = current.stream_position()?;
        if current.read_at(&mut probe, position)? > 0 {
            return Ok(Next::Again);
        }
        // Two rotations during one wait: the older file has not been read yet.
        let before = match open_file(&older(&path)) {
            // The file was removed from outside, and the writer has created another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            before => Some(before?),
        };
        let read = current.metadata()?.ino();
        let missed = before.map(|file| file.metadata().map(|facts| (facts.ino(), file))).transpose()?;
        self.current = Some(missed.filter(|(ino, _)| *ino != read).map_or(opened, |(_, file)| file));
        Ok(Next::Fresh)
    }
}

impl Wake {
    /// Wakes whenever a file in `dir` changes, and when `sleeve` is closed by the peer.
    pub(crate) fn new(dir: &Dir, sleeve: Option<UnixStream>) -> io::Result<Self> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, dir.path(), what)?;
        Ok(Self { changes, sleeve })
    }

    /// Waits for a change. Returns false once the log is complete.
    pub(crate) fn wait(&mut self) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.changes, PollFlags::IN)];
        if let Some(sleeve) = &self.sleeve {
            fds.push(PollFd::from_borrowed_fd(sleeve.as_fd(), PollFlags::RDHUP));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let over = fds.get(1).is_some_and(|sleeve| sleeve.revents().intersects(ended));
        self.discard_changes();
        Ok(!over)
    }

    /// Empties the queue: which file changed does not matter.
    fn discard_changes(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut changes = inotify::Reader::new(&self.changes, &mut space);
        while changes.next().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotating::{Content, Rotating};
    use super::*;
    use crate::state::Home;

    fn open(dir: &tempfile::TempDir) -> (Dir, Home) {
        let dir = Dir::open(dir.path()).unwrap();
        (dir.clone(), Home::new(dir))
    }

    fn rest(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let (piece, _) = reader.next_piece().unwrap();
            if piece.is_empty() {
                return all;
            }
            all.extend_from_slice(piece);
        }
    }

    #[test]
    fn a_reader_continues_from_file_to_file() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, home) = open(&directory);
        let mut reader = Reader::open(&dir, "log");
        assert!(rest(&mut reader).is_empty());
        let mut log = Rotating::create(home, "log", Content::Records, 4).unwrap();
        log.append(b"aaaa").unwrap();
        assert_eq!(rest(&mut reader), b"aaaa");
        log.append(b"bbbb").unwrap();
        log.append(b"c").unwrap();
        assert_eq!(rest(&mut reader), b"bbbbc");
    }

    #[test]
    fn a_late_reader_starts_with_the_older_file() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, home) = open(&directory);
        let mut log = Rotating::create(home, "log", Content::Records, 2).unwrap();
        for piece in [b"aa", b"bb", b"cc"] {
            log.append(piece).unwrap();
        }
        assert_eq!(rest(&mut Reader::open(&dir, "log")), b"bbcc");
    }

    #[test]
    fn a_reader_continues_after_the_file_was_removed_and_recreated() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, home) = open(&directory);
        let mut log = Rotating::create(home, "log", Content::Records, 100).unwrap();
        let mut reader = Reader::open(&dir, "log");
        log.append(b"first").unwrap();
        assert_eq!(rest(&mut reader), b"first");
        std::fs::remove_file(directory.path().join("log")).unwrap();
        log.append(b"second").unwrap();
        assert_eq!(rest(&mut reader), b"second");
    }

    #[test]
    fn new_bytes_wake_the_reader_and_a_closed_socket_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wake = Wake::new(&Dir::open(dir.path()).unwrap(), Some(ours)).unwrap();
        std::fs::write(dir.path().join("log"), b"x").unwrap();
        assert!(wake.wait().unwrap());
        drop(theirs);
        while wake.wait().unwrap() {}
    }
}
