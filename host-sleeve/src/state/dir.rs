//! An open directory, which stays the same even if its path refers to another one meanwhile.
//!
//! Invariant: a path can be removed and reused at any moment, a descriptor cannot. Paths through `/proc/self/fd` are resolved
//! from the descriptor (`proc_pid_fd(5)`), as by openat(2) and unlinkat(2): in a removed directory they find nothing and create
//! nothing.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

/// An open directory.
#[derive(Clone, Debug)]
pub(crate) struct Dir(Arc<File>);

/// Where an enclave's files are to be written now: its directory may be recreated elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Home(Arc<Mutex<Dir>>);

impl Dir {
    /// Opens the directory at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            Ok(Self(Arc::new(file)))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// A path of the directory. It is valid while the directory is open, in this process and in a child before its exec.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The path of something in it, valid like [`Self::path`], and short enough for a socket (108 bytes, unix(7)).
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Opens a regular file in it for reading, as [`open_file`].
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        open_file(&self.at(name))
    }

    /// Whether `path` refers to this directory.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        same(self.0.metadata(), fs::symlink_metadata(path))
    }

    /// Whether `other` is the same directory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        same(self.0.metadata(), other.0.metadata())
    }

    /// Whether `name` in this directory refers to `file`.
    pub(crate) fn has(&self, file: &File, name: &str) -> bool {
        same(file.metadata(), fs::symlink_metadata(self.at(name)))
    }

    /// Synchronizes its entries to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Home {
    /// A home in `dir`.
    pub(crate) fn new(dir: Dir) -> Self {
        Self(Arc::new(Mutex::new(dir)))
    }

    /// The current directory.
    pub(crate) fn dir(&self) -> Dir {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `dir` the current directory.
    pub(crate) fn move_to(&self, dir: Dir) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = dir;
    }
}

/// Opens a regular file for reading. Something else is refused: a pipe, whose writer would be waited for, and a symbolic link, since
/// no file of the state directory is one.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn same(one: io::Result<Metadata>, other: io::Result<Metadata>) -> bool {
    let id = |facts: Metadata| (facts.dev(), facts.ino());
    one.is_ok_and(|one| other.is_ok_and(|other| id(one) == id(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_directory_does_not_follow_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        fs::create_dir(&path).unwrap();
        let opened = Dir::open(&path).unwrap();
        fs::write(opened.at("file"), "ours").unwrap();
        assert!(opened.is_at(&path) && opened.has(&File::open(path.join("file")).unwrap(), "file"));
        fs::rename(&path, dir.path().join("other")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!opened.is_at(&path) && !opened.is(&Dir::open(&path).unwrap()));
        assert_eq!(fs::read(opened.at("file")).unwrap(), b"ours");
        fs::remove_dir_all(dir.path().join("other")).unwrap();
        assert_eq!(fs::write(opened.at("file"), "").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!path.join("file").exists());
    }

    #[test]
    fn a_pipe_a_directory_and_a_symbolic_link_are_not_opened_as_files() {
        let dir = tempfile::tempdir().unwrap();
        let opened = Dir::open(dir.path()).unwrap();
        fs::write(opened.at("file"), "ours").unwrap();
        opened.open_file("file").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, opened.at("pipe"), Mode::RUSR).unwrap();
        fs::create_dir(opened.at("directory")).unwrap();
        std::os::unix::fs::symlink("file", opened.at("link")).unwrap();
        for name in ["pipe", "directory", "link"] {
            opened.open_file(name).unwrap_err();
        }
    }

    #[test]
    fn a_file_is_not_opened_as_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Dir::open(file.path()).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
