//! An application as the manifest's checks see it.
//!
//! Its law: names that are not UTF-8 exist, and no manifest can mean them.

use cloister_image::oci::{Architecture, Config};
use cloister_image::tree::{Kind, Tree};
use cloister_manifest::source::{Arch, Entry, EntryKind, ImageConfig, Rootfs};

/// A tree as the manifest's checks see it.
#[derive(Debug)]
pub(super) struct Root<'a>(pub(super) &'a Tree);

impl Rootfs for Root<'_> {
    fn entry(&self, path: &str) -> Option<Entry> {
        let inode = self.0.get(path.as_bytes())?;
        let kind = match &inode.kind {
            Kind::Directory => EntryKind::Directory,
            Kind::File(_) => EntryKind::File,
            Kind::Symlink(target) => EntryKind::Link(String::from_utf8_lossy(target).into_owned()),
            Kind::Fifo => EntryKind::Other,
        };
        Some(Entry { kind, mode: inode.mode, uid: inode.uid, gid: inode.gid })
    }

    fn read(&self, path: &str, limit: usize) -> std::io::Result<Vec<u8>> {
        let not_a_file = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let Kind::File(content) = &self.0.get(path.as_bytes()).ok_or_else(not_a_file)?.kind else {
            return Err(not_a_file());
        };
        let length = usize::try_from(content.len()).unwrap_or(usize::MAX).min(limit);
        let mut bytes = vec![0; length];
        content.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// An image's configuration, with what it leaves out empty.
pub(super) fn config(config: &Config) -> ImageConfig {
    let config = config.clone();
    ImageConfig {
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        exposed_ports: config.exposed_ports.unwrap_or_default(),
    }
}

/// The machine, in the manifest's words.
pub(super) const fn arch(architecture: Architecture) -> Arch {
    match architecture {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64 => Arch::Aarch64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_image::tree::{Content, Inode};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let file = Kind::File(Content::Bytes(b"hello"[..].into()));
        tree.insert(b"hello".to_vec(), Inode { kind: file, ..Inode::directory() });
        tree.insert(b"link".to_vec(), Inode { kind: Kind::Symlink(b"hello".to_vec()), ..Inode::directory() });
        tree
    }

    #[test]
    fn a_tree_is_seen_as_it_is() {
        let tree = tree();
        let root = Root(&tree);
        assert_eq!(root.entry("").unwrap().kind, EntryKind::Directory);
        assert_eq!(root.entry("link").unwrap().kind, EntryKind::Link("hello".into()));
        assert_eq!(root.entry("nothing"), None);
    }

    #[test]
    fn a_file_is_read_up_to_a_limit() {
        let tree = tree();
        let root = Root(&tree);
        assert_eq!(root.read("hello", 3).unwrap(), b"hel");
        assert_eq!(root.read("hello", 99).unwrap(), b"hello");
        assert!(root.read("link", 9).is_err());
    }
}
