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
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use super::kept::kept;
use super::rotating::older;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// The raw bytes of a log, the oldest file first.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
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
    /// A reader of everything that is kept of the log at `path`.
    pub(crate) fn open(path: &Path) -> Self {
        let oldest = [kept(path), older(path), path.to_owned()].iter().find_map(|file| File::open(file).ok());
        Self { path: path.to_owned(), current: oldest, buffer: vec![0; PIECE] }
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
        let opened = match File::open(&self.path) {
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
        let before = File::open(older(&self.path))?;
        let same = before.metadata()?.ino() == current.metadata()?.ino();
        self.current = Some(if same { opened } else { before });
        Ok(Turn::Fresh)
    }
}

impl Wake {
    /// Wakes whenever something in `folder` changes, and when `sleeve` is closed by the other side.
    pub(crate) fn new(folder: &Path, sleeve: Option<UnixStream>) -> io::Result<Self> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, folder, what)?;
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::open(&path);
        assert!(rest(&mut reader).is_empty());
        let mut log = Rotating::create(path, 4).unwrap();
        log.append(b"aaaa").unwrap();
        assert_eq!(rest(&mut reader), b"aaaa");
        log.append(b"bbbb").unwrap();
        log.append(b"c").unwrap();
        assert_eq!(rest(&mut reader), b"bbbbc");
    }

    #[test]
    fn a_late_reader_begins_with_the_older_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::create(path.clone(), 2).unwrap();
        for piece in [b"aa", b"bb", b"cc"] {
            log.append(piece).unwrap();
        }
        assert_eq!(rest(&mut Reader::open(&path)), b"bbcc");
    }

    #[test]
    fn a_new_byte_wakes_and_a_closed_socket_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wake = Wake::new(dir.path(), Some(ours)).unwrap();
        std::fs::write(dir.path().join("log"), b"x").unwrap();
        assert!(wake.wait().unwrap());
        drop(theirs);
        while wake.wait().unwrap() {}
    }
}
