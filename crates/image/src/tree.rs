//! A file tree in memory: names and metadata here, contents wherever they lie.
//!
//! Its law: the order of everything is the order of bytes, so that what is written from a tree does not depend on how it
//! was read. A tree never holds a file's content: it knows where to read it, and writers stream it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Every name by its path from the root, without a leading slash; the root itself is the empty path. A directory's
    /// path sorts before what is in it.
    pub entries: BTreeMap<Vec<u8>, InodeId>,
    /// What the names stand for. Several names of one inode are hard links.
    pub inodes: Vec<Inode>,
}

/// An index into [`Tree::inodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub usize);

/// Metadata and content of one file.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Permission bits, set-user-ID, set-group-ID and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970. Kept as the layer has it: `.pyc` files carry their source's.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`, `user.…`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What an inode is. Devices and sockets have no place in an enclave's root.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as it is written.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// Where a file's bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file that stays open: `length` bytes from `offset`.
    Spooled {
        /// The file.
        file: Arc<File>,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
}

impl Content {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Spooled { length, .. } => *length,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `position`; fails if the content ends before it is full.
    pub fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> std::io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(position).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                let source = bytes.get(start..end).ok_or(std::io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(source);
                Ok(())
            }
            Self::Spooled { file, offset, .. } => file.read_exact_at(buffer, offset.saturating_add(position)),
        }
    }
}

impl Tree {
    /// The inode behind a path, as it is named: symbolic links are not followed.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Inode> {
        self.entries.get(path).and_then(|id| self.inodes.get(id.0))
    }
}
