//! The manifest's view of a tree: users, programs and directories are looked up in it at build time.
//!
//! Invariant: each lookup is for exactly the given path and follows no links; resolving paths is left to the manifest.

use std::io;

use cloister_manifest::source::{Entry, EntryKind, Rootfs};

use super::{Kind, Tree};

impl Rootfs for Tree {
    fn entry(&self, path: &str) -> Option<Entry> {
        let inode = self.get(path.as_bytes())?;
        let kind = match &inode.kind {
            Kind::Directory => EntryKind::Directory,
            Kind::File(_) => EntryKind::File,
            // A manifest cannot name a target that is not UTF-8.
            Kind::Symlink(target) => {
                String::from_utf8(target.clone()).map_or(EntryKind::Other, EntryKind::Link)
            }
            Kind::Fifo => EntryKind::Other,
        };
        Some(Entry { kind, mode: inode.mode, uid: inode.uid, gid: inode.gid })
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let content = match self.get(path.as_bytes()).map(|inode| &inode.kind) {
            Some(Kind::File(content)) => content,
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let length = usize::try_from(content.len()).unwrap_or(usize::MAX).min(limit);
        let mut bytes = vec![0; length];
        content.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn capabilities(&self, path: &str) -> Option<Vec<u8>> {
        self.get(path.as_bytes())?.xattrs.get(b"security.capability".as_slice()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Inode};

    #[test]
    fn a_manifest_sees_kinds_modes_and_contents() {
        let mut tree = Tree::new();
        let file = Kind::File(Content::Bytes(b"root:x:0:0::/:/bin/sh\n".as_slice().into()));
        tree.insert(b"etc".to_vec(), Inode::directory());
        tree.insert(b"etc/passwd".to_vec(), Inode { mode: 0o644, uid: 5, kind: file, ..Inode::directory() });
        tree.insert(b"link".to_vec(), Inode { kind: Kind::Symlink(b"etc".to_vec()), ..Inode::directory() });
        assert_eq!(tree.entry("").map(|entry| entry.kind), Some(EntryKind::Directory));
        assert_eq!(tree.entry("link").map(|entry| entry.kind), Some(EntryKind::Link("etc".to_owned())));
        let passwd = tree.entry("etc/passwd").unwrap();
        assert_eq!((passwd.kind, passwd.mode, passwd.uid), (EntryKind::File, 0o644, 5));
        assert_eq!(tree.read("etc/passwd", 4).unwrap(), b"root");
        assert!(
            tree.read("etc", 4).is_err()
                && tree.read("nothing", 4).is_err()
                && tree.entry("nothing").is_none()
        );
    }
}
