//! Reads a log while it is being written.
//!
//! Its law: it waits for events, never for time. inotify(7) tells of new bytes, new files and a new record; the sleeve's
//! socket tells, by being closed, that nothing more will come.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use crate::state::Dir;

use super::kept::kept;
use super::rotating::older;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// The raw bytes of a log, the oldest file first.
#[derive(Debug)]
pub(crate) struct Reader {
    dir: Dir,
    name: &'static str,
    current: Option<File>,
    buffer: Vec<u8>,
}

/// What there is at the end of a file.
enum Turn {
    /// Nothing, for now.
    End,
    /// More in this file.
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
    /// A reader of everything that is kept of the log of this name in `dir`.
    pub(crate) fn open(dir: &Dir, name: &'static str) -> Self {
        let path = dir.at(name);
        let oldest = [kept(&path), older(&path), path].iter().find_map(|file| File::open(file).ok());
        Self { dir: dir.clone(), name, current: oldest, buffer: vec![0; PIECE] }
    }

    /// The next bytes; empty if there are no more for now. The flag says whether they begin a new file, in front of which
    /// something may have been lost.
    pub(crate) fn next_piece(&mut self) -> io::Result<(&[u8], bool)> {
        let mut fresh = false;
        loop {
            let count = match self.current.as_mut() {
                Some(file) => file.read(&mut self.buffer)?,
                None => 0,
            };
            if count == 0 {
                match self.turn()? {
                    Turn::End => {}
                    Turn::Again => continue,
                    Turn::Fresh => {
                        fresh = true;
                        continue;
                    }
                }
            }
            return Ok((self.buffer.get(..count).unwrap_or_default(), fresh));
        }
    }

    /// Goes on to the next file, if the current one has been left behind by the writer.
    fn turn(&mut self) -> io::Result<Turn> {
        let path = self.dir.at(self.name);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Turn::End),
            other => other?,
        };
        let Some(current) = self.current.as_mut() else {
            self.current = Some(opened);
            return Ok(Turn::Fresh);
        };
        if current.metadata()?.ino() == opened.metadata()?.ino() {
            return Ok(Turn::End);
        }
        // The writer may have appended between our last read and its turn.
        let mut probe = [0; 1];
        let position = current.stream_position()?;
        if current.read_at(&mut probe, position)? > 0 {
            return Ok(Turn::Again);
        }
        // Two turns in one wait: the older file is the one we have not read.
        let before = match File::open(older(&path)) {
            // Somebody has removed the file, and the writer has made another.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            before => Some(before?),
        };
        let read = current.metadata()?.ino();
        let missed = before.map(|file| file.metadata().map(|facts| (facts.ino(), file))).transpose()?;
        self.current = Some(missed.filter(|(ino, _)| *ino != read).map_or(opened, |(_, file)| file));
        Ok(Turn::Fresh)
    }
}

impl Wake {
    /// Wakes whenever something in `dir` changes, and when `sleeve` is closed by the other side.
    pub(crate) fn new(dir: &Dir, sleeve: Option<UnixStream>) -> io::Result<Self> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, dir.path(), what)?;
        Ok(Self { changes, sleeve })
    }

    /// Waits for a change. Answers whether more may come.
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
        self.forget_changes();
        Ok(!over)
    }

    /// Empties the queue: which file changed does not matter.
    fn forget_changes(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut changes = inotify::Reader::new(&self.changes, &mut space);
        while changes.next().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotating::Rotating;
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
    fn a_follower_goes_over_from_file_to_file() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, home) = open(&folder);
        let mut reader = Reader::open(&dir, "log");
        assert!(rest(&mut reader).is_empty());
        let mut log = Rotating::create(home, "log", 4).unwrap();
        log.append(b"aaaa").unwrap();
        assert_eq!(rest(&mut reader), b"aaaa");
        log.append(b"bbbb").unwrap();
        log.append(b"c").unwrap();
        assert_eq!(rest(&mut reader), b"bbbbc");
    }

    #[test]
    fn a_late_reader_begins_with_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, home) = open(&folder);
        let mut log = Rotating::create(home, "log", 2).unwrap();
        for piece in [b"aa", b"bb", b"cc"] {
            log.append(piece).unwrap();
        }
        assert_eq!(rest(&mut Reader::open(&dir, "log")), b"bbcc");
    }

    #[test]
    fn a_follower_goes_on_where_the_file_was_removed_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, home) = open(&folder);
        let mut log = Rotating::create(home, "log", 100).unwrap();
        let mut reader = Reader::open(&dir, "log");
        log.append(b"first").unwrap();
        assert_eq!(rest(&mut reader), b"first");
        std::fs::remove_file(folder.path().join("log")).unwrap();
        log.append(b"second").unwrap();
        assert_eq!(rest(&mut reader), b"second");
    }

    #[test]
    fn a_new_byte_wakes_and_a_closed_socket_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wake = Wake::new(&Dir::open(dir.path()).unwrap(), Some(ours)).unwrap();
        std::fs::write(dir.path().join("log"), b"x").unwrap();
        assert!(wake.wait().unwrap());
        drop(theirs);
        while wake.wait().unwrap() {}
    }
}
