//! A directory on this host as an application's root.
//!
//! Invariant: only what is below the directory is read, even if another process writes there: no link is followed,
//! no other file system is entered, and a file that changes while it is read is an error.
//!
//! Owners are relative to the owner of the directory itself, as in a user namespace: files of the directory's owner
//! belong to root inside. So a root unpacked by root, one unpacked in a user namespace and a developer's directory all
//! give the expected image, and none contains user IDs of this host.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::layers::{EntryError, Notes, check_symlink, escapes_root, keeps_xattr};
use crate::limits::{self, LimitError, Limits, MAX_PATH, MAX_XATTR};
use crate::spool::{Spool, SpoolError};
use crate::tree::{Inode, InodeId, Kind, Tree, Xattrs, join};

/// Why a directory cannot be an application's root.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read: a problem of this host.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process wrote to it while it was read.
    #[error("{} changed while it was being read", .0.display())]
    Changed(PathBuf),
    /// It contains something that an image cannot hold.
    #[error("{} is refused", .path.display())]
    Entry {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        error: EntryError,
    },
    /// It exceeds a limit, which an operator can raise.
    #[error("it is too large")]
    Limit(#[source] LimitError),
    /// It cannot be written to the scratch directory: a problem of this host.
    #[error("the scratch directory cannot be written")]
    Scratch(#[source] io::Error),
}

/// Reads the tree below `root`, file contents into `spool`.
pub fn read(root: &Path, spool: &mut Spool, limits: &Limits) -> Result<(Tree, Notes), DirectoryError> {
    let error =
        |source: rustix::io::Errno| DirectoryError::Read { path: root.to_owned(), source: source.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(root, flags, Mode::empty()).map_err(error)?;
    let stat = rustix::fs::fstat(&handle).map_err(error)?;
    let mut walk = Walk {
        place: root,
        owner: (stat.st_uid, stat.st_gid),
        device: stat.st_dev,
        root: handle,
        spool,
        limits,
        tree: Tree::new(),
        notes: Notes::default(),
        linked: HashMap::new(),
        pending: vec![Vec::new()],
        metadata: 0,
        bytes: 0,
    };
    let top = walk.inode(&stat, Kind::Directory, Xattrs::new());
    walk.tree.insert(Vec::new(), top);
    while let Some(path) = walk.pending.pop() {
        walk.directory(&path)?;
    }
    walk.tree.renumber();
    Ok((walk.tree, walk.notes))
}

struct Walk<'a> {
    /// For messages only: everything is opened from `root`.
    place: &'a Path,
    root: OwnedFd,
    owner: (u32, u32),
    device: u64,
    spool: &'a mut Spool,
    limits: &'a Limits,
    tree: Tree,
    notes: Notes,
    /// Files with several hard links, by device and inode.
    linked: HashMap<(u64, u64), InodeId>,
    /// Directories that are still to be read.
    pending: Vec<Vec<u8>>,
    metadata: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<(), DirectoryError> {
        let handle = self.open(path, OFlags::DIRECTORY).map_err(|error| self.error(path, error))?;
        let list = Dir::read_from(&handle).map_err(|error| self.error(path, error))?;
        for entry in list {
            let entry = entry.map_err(|error| self.error(path, error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.entry(&handle, &join(path, name), entry.file_name())?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &std::ffi::CStr,
    ) -> Result<(), DirectoryError> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.error(path, error))?;
        self.count(path)?;
        if let Some(id) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
            self.tree.entries.insert(path.to_vec(), *id);
            return Ok(());
        }
        let Some((kind, xattrs)) = self.kind(directory, path, name, &stat)? else { return Ok(()) };
        let several = stat.st_nlink > 1 && !matches!(kind, Kind::Directory);
        let inode = self.inode(&stat, kind, xattrs);
        let id = self.tree.insert(path.to_vec(), inode);
        if several {
            self.linked.insert((stat.st_dev, stat.st_ino), id);
        }
        Ok(())
    }

    fn kind(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &std::ffi::CStr,
        stat: &Stat,
    ) -> Result<Option<(Kind, Xattrs)>, DirectoryError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.subdirectory(path, stat),
            FileType::RegularFile => return self.file(path, stat).map(Some),
            FileType::Fifo => Kind::Fifo,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new());
                let target = target.map_err(|error| self.error(path, error))?.into_bytes();
                check_symlink(&target).map_err(|error| self.refused(path, error))?;
                if escapes_root(path, &target) {
                    self.notes.escaping_link(path, &target);
                }
                Kind::Symlink(target)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.notes.device(path);
                return Ok(None);
            }
            FileType::Socket => {
                self.notes
                    .add(|| format!("the socket {} is left out: nothing listens on it", crate::shown(path)));
                return Ok(None);
            }
            FileType::Unknown => return Err(self.refused(path, EntryError::Unknown)),
        };
        Ok(Some((kind, Xattrs::new())))
    }

    fn subdirectory(&mut self, path: &[u8], stat: &Stat) -> Kind {
        if stat.st_dev == self.device {
            self.pending.push(path.to_vec());
        } else {
            self.notes.add(|| {
                format!("{} is another file system: only an empty directory is included", crate::shown(path))
            });
        }
        Kind::Directory
    }

    fn file(&mut self, path: &[u8], stat: &Stat) -> Result<(Kind, Xattrs), DirectoryError> {
        // O_NONBLOCK: if the file has become a pipe in the meantime, opening it must not block.
        let handle = self.open(path, OFlags::NONBLOCK).map_err(|error| self.error(path, error))?;
        let length = u64::try_from(stat.st_size).map_err(|_| DirectoryError::Changed(self.shown(path)))?;
        self.bytes = self.bytes.saturating_add(length);
        limits::check(limits::UNPACKED, self.bytes, self.limits.unpacked).map_err(DirectoryError::Limit)?;
        let xattrs = self.xattrs(&handle, path)?;
        let mut file = File::from(handle);
        let content = match self.spool.append_file(&mut file, length) {
            Ok(content) => content,
            Err(SpoolError::Write(error)) => return Err(DirectoryError::Scratch(error)),
            Err(SpoolError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(DirectoryError::Changed(self.shown(path)));
            }
            Err(SpoolError::Read(source)) => {
                return Err(DirectoryError::Read { path: self.shown(path), source });
            }
        };
        self.unchanged(&file, path, stat)?;
        Ok((Kind::File(content), xattrs))
    }

    /// Whether the file is still the one seen in the directory, unchanged.
    fn unchanged(&self, file: &File, path: &[u8], before: &Stat) -> Result<(), DirectoryError> {
        let after = rustix::fs::fstat(file).map_err(|error| self.error(path, error))?;
        let key = |stat: &Stat| {
            (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_mode)
        };
        if key(before) == key(&after) { Ok(()) } else { Err(DirectoryError::Changed(self.shown(path))) }
    }

    fn xattrs(&mut self, file: &OwnedFd, path: &[u8]) -> Result<Xattrs, DirectoryError> {
        let mut list = vec![0_u8; MAX_XATTR];
        let length = match rustix::fs::flistxattr(file, &mut list) {
            Ok(length) => length,
            // A file system without extended attributes.
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(self.error(path, error)),
        };
        let mut xattrs = Xattrs::new();
        let names = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
        for name in names.filter(|name| keeps_xattr(name)) {
            let mut value = vec![0_u8; MAX_XATTR];
            let length =
                rustix::fs::fgetxattr(file, name, &mut value).map_err(|error| self.error(path, error))?;
            value.truncate(length);
            self.add_metadata(name.len() + length)?;
            xattrs.insert(name.to_vec(), value);
        }
        Ok(xattrs)
    }

    fn inode(&self, stat: &Stat, kind: Kind, xattrs: Xattrs) -> Inode {
        let count_from = |base: u32, number: u32| number.checked_sub(base).unwrap_or(number);
        Inode {
            mode: stat.st_mode & 0o7777,
            uid: count_from(self.owner.0, stat.st_uid),
            gid: count_from(self.owner.1, stat.st_gid),
            mtime: stat.st_mtime,
            xattrs,
            kind,
        }
    }

    fn count(&mut self, path: &[u8]) -> Result<(), DirectoryError> {
        limits::check("bytes of a path", crate::wide(path.len()), crate::wide(MAX_PATH))
            .and_then(|()| {
                limits::check(limits::ENTRIES, crate::wide(self.tree.entries.len()), self.limits.entries)
            })
            .map_err(DirectoryError::Limit)?;
        self.add_metadata(path.len())
    }

    fn add_metadata(&mut self, length: usize) -> Result<(), DirectoryError> {
        self.metadata = self.metadata.saturating_add(crate::wide(length));
        limits::check(limits::METADATA, self.metadata, self.limits.metadata).map_err(DirectoryError::Limit)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve)
    }

    fn error(&self, path: &[u8], error: rustix::io::Errno) -> DirectoryError {
        DirectoryError::Read { path: self.shown(path), source: error.into() }
    }

    fn refused(&self, path: &[u8], error: EntryError) -> DirectoryError {
        DirectoryError::Entry { path: self.shown(path), error }
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.place.join(crate::shown(path).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn read_it(root: &Path) -> Result<(Tree, Notes), DirectoryError> {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        read(root, &mut spool, &Limits::default())
    }

    #[test]
    fn a_directory_is_read_with_its_links_modes_and_times() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir(path("bin")).unwrap();
        std::fs::write(path("bin/app"), b"program").unwrap();
        std::fs::set_permissions(path("bin/app"), PermissionsExt::from_mode(0o4755)).unwrap();
        std::fs::hard_link(path("bin/app"), path("again")).unwrap();
        symlink("/bin/app", path("link")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();

        let (tree, notes) = read_it(root.path()).unwrap();
        let names: Vec<_> =
            tree.entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(names, ["", "again", "bin", "bin/app", "link"]);
        assert_eq!(tree.entries.get(&b"again"[..]), tree.entries.get(&b"bin/app"[..]));
        let app = tree.get(b"bin/app").unwrap();
        assert_eq!((app.mode, app.uid, app.gid), (0o4755, 0, 0));
        assert_eq!(app.mtime, std::fs::metadata(path("bin/app")).unwrap().mtime());
        assert!(matches!(&tree.get(b"link").unwrap().kind, Kind::Symlink(target) if target == b"/bin/app"));
        assert_eq!(notes.texts.len(), 1);
    }

    #[test]
    fn an_escaping_link_is_kept_and_noted_and_too_many_bytes_are_refused() {
        let root = tempfile::tempdir().unwrap();
        symlink("../../etc/passwd", root.path().join("out")).unwrap();
        let (tree, notes) = read_it(root.path()).unwrap();
        assert!(
            matches!(&tree.get(b"out").unwrap().kind, Kind::Symlink(target) if target == b"../../etc/passwd")
        );
        assert!(notes.texts[0].contains("the link out points above the root"), "{notes:?}");

        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("big"), [0; 100]).unwrap();
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let limits = Limits { unpacked: 99, ..Limits::default() };
        assert!(matches!(read(root.path(), &mut spool, &limits), Err(DirectoryError::Limit(_))));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = read_it(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/at/all cannot be read");
    }
}
