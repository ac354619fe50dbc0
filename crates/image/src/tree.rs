//! A file tree in memory: names and metadata, with references to the contents.
//!
//! Invariant: everything is sorted by bytes, so that output written from a tree does not depend on how the tree was
//! read. A tree does not hold the content of spooled files: it knows where to read it, and writers stream it.

mod digest;
mod follow;
mod rootfs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use follow::FollowError;

/// A file tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Every name by its path from the root, without a leading slash; the root itself is the empty path. A directory's
    /// path sorts before what is in it.
    pub entries: BTreeMap<Vec<u8>, InodeId>,
    /// The inodes that the names refer to. Several names of one inode are hard links.
    pub inodes: Vec<Inode>,
}

/// An index into [`Tree::inodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub usize);

/// Metadata and content of one file.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Permission bits, set-user-ID, set-group-ID and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970. Preserved as in the layer: `.pyc` files contain their source's.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`, `user.…`).
    pub xattrs: Xattrs,
    /// Its type.
    pub kind: Kind,
}

/// Extended attributes by full name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The type of an inode. An enclave's root cannot contain devices and sockets.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as stored.
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
        /// How many bytes.
        length: u64,
    },
}

/// Minimum length for which checking for a hole pays off: the kernel fills its page cache with zeros when a hole is
/// read.
const HOLE: usize = 64 << 10;

impl Content {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Spooled { length, .. } => *length,
        }
    }

    /// Whether it is empty.
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
            Self::Spooled { file, offset, .. } => {
                let at = offset.saturating_add(position);
                if buffer.len() >= HOLE && is_hole(file, at, buffer.len()) {
                    buffer.fill(0);
                    return Ok(());
                }
                file.read_exact_at(buffer, at)
            }
        }
    }

    /// A reader that starts at the beginning.
    #[must_use]
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, at: 0 }
    }
}

/// Reads a content from its beginning.
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.content.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let part = buffer.get_mut(..left.min(buffer.len())).unwrap_or_default();
        self.content.read_exact_at(part, self.at)?;
        self.at = self.at.saturating_add(crate::wide(part.len()));
        Ok(part.len())
    }
}

impl Inode {
    /// A directory that belongs to root and that everyone may read: the default for directories without metadata.
    #[must_use]
    pub fn directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new(), kind: Kind::Directory }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

impl Tree {
    /// A tree that contains only its root.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self::default();
        tree.insert(Vec::new(), Inode::directory());
        tree
    }

    /// The inode at a path; symbolic links are not followed.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Inode> {
        self.entries.get(path).and_then(|id| self.inodes.get(id.0))
    }

    /// The inode at an index of this tree.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id.0)
    }

    /// Gives `path` a new inode of its own. The inode that the path had before stays with its other names.
    ///
    /// The caller ensures that the parent is a directory in the tree.
    pub fn insert(&mut self, path: Vec<u8>, inode: Inode) -> InodeId {
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        self.entries.insert(path, id);
        id
    }

    /// Removes `path` and everything below it from the tree.
    pub fn remove(&mut self, path: &[u8]) {
        let below: Vec<Vec<u8>> = self.below(path).map(|(name, _)| name.clone()).collect();
        for name in below {
            self.entries.remove(&name);
        }
        self.entries.remove(path);
    }

    /// Everything below a directory, in order, without the directory itself.
    pub fn below(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &InodeId)> + use<'_> {
        let bounds = match path {
            [] => (Bound::Excluded(Vec::new()), Bound::Unbounded),
            // `0` is the byte after `/`: everything that starts with `path/` sorts between the two.
            _ => (Bound::Excluded([path, b"/"].concat()), Bound::Excluded([path, b"0"].concat())),
        };
        self.entries.range(bounds)
    }

    /// Sets every modification time that is later than `latest`, in seconds since 1970, to it.
    pub fn clamp_mtime(&mut self, latest: i64) {
        for inode in &mut self.inodes {
            inode.mtime = inode.mtime.min(latest);
        }
    }

    /// Drops inodes without a name and numbers the rest in the order of their first names.
    ///
    /// After this, two trees with the same names and contents are equal regardless of their history.
    pub fn renumber(&mut self) {
        let mut new_ids: BTreeMap<InodeId, InodeId> = BTreeMap::new();
        let mut kept = Vec::new();
        for id in self.entries.values_mut() {
            *id = match (new_ids.get(id), self.inodes.get(id.0)) {
                (Some(known), _) => *known,
                (None, Some(inode)) => {
                    let fresh = InodeId(kept.len());
                    kept.push(inode.clone());
                    new_ids.insert(*id, fresh);
                    fresh
                }
                (None, None) => *id,
            };
        }
        self.inodes = kept;
    }
}

/// Whether the range is a hole. This moves the file's position, which nothing else uses.
fn is_hole(file: &File, at: u64, length: usize) -> bool {
    let end = at.saturating_add(crate::wide(length));
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data >= end,
        // There is no data after `at`: the range is a hole if the file is long enough.
        Err(rustix::io::Errno::NXIO) => file.metadata().is_ok_and(|metadata| metadata.len() >= end),
        Err(_) => false,
    }
}

/// The directory that contains a path; the root for a name in the root, and for the root itself.
#[must_use]
pub fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|slash| path.get(..slash)).unwrap_or_default()
}

/// The last component of a path.
#[must_use]
pub fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// A path from a directory's path and a name in it.
#[must_use]
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            tree.insert(path.as_bytes().to_vec(), Inode::directory());
        }
        tree
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn removing_a_directory_preserves_names_that_only_share_its_prefix() {
        let mut tree = tree_of(&["a", "a-b", "a/b", "a/b/c", "a0", "b"]);
        tree.remove(b"a");
        assert_eq!(names(&tree), ["", "a-b", "a0", "b"]);
    }

    #[test]
    fn below_the_root_is_everything_but_the_root() {
        let tree = tree_of(&["a", "b"]);
        assert_eq!(tree.below(b"").count(), 2);
    }

    #[test]
    fn renumbering_removes_traces_of_history_and_preserves_hard_links() {
        let mut tree = tree_of(&["z", "a"]);
        tree.insert(b"a".to_vec(), Inode { mode: 0o700, ..Inode::directory() });
        let shared = tree.insert(b"m".to_vec(), Inode { kind: Kind::Fifo, ..Inode::directory() });
        tree.entries.insert(b"b".to_vec(), shared);
        tree.renumber();
        let ids: Vec<usize> = tree.entries.values().map(|id| id.0).collect();
        assert_eq!(ids, [0, 1, 2, 2, 3]);
        assert_eq!(tree.inodes.len(), 4);
        assert_eq!(tree.get(b"a").map(|inode| inode.mode), Some(0o700));
    }

    #[test]
    fn a_path_consists_of_its_parent_and_its_base() {
        assert_eq!((parent(b"a/b/c"), base(b"a/b/c")), (&b"a/b"[..], &b"c"[..]));
        assert_eq!((parent(b"a"), base(b"a")), (&b""[..], &b"a"[..]));
        assert_eq!(join(parent(b"a/b"), base(b"a/b")), b"a/b");
        assert_eq!(join(b"", b"x"), b"x");
    }
}
