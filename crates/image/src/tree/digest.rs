//! The digest of a whole tree.
//!
//! Invariant: two trees have the same digest exactly if a process cannot distinguish them. Every field is preceded by
//! its length, so that the encoding is unambiguous.

use std::collections::HashMap;
use std::io;

use sha2::{Digest as _, Sha256};

use super::{Content, InodeId, Kind, Tree};
use crate::digest::{Digest, Hashed};

/// Domain separation: hashed first, so that no other data has the same digest.
const DOMAIN: &[u8] = b"cloister tree v1";

/// Bytes of a file read at a time.
const CHUNK: usize = 128 * 1024;

impl Tree {
    /// The digest of all names, metadata and contents. Reads every file.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut out = Hashed::new(io::sink());
        field(&mut out, DOMAIN)?;
        let mut known: HashMap<InodeId, u64> = HashMap::new();
        for (path, id) in &self.entries {
            field(&mut out, path)?;
            let number = crate::wide(known.len());
            if let Some(first) = known.get(id) {
                // A hard link is encoded as the number of its inode, in the order of first names.
                field(&mut out, b"link")?;
                field(&mut out, &first.to_be_bytes())?;
                continue;
            }
            known.insert(*id, number);
            self.inode_fields(*id, &mut out)?;
        }
        Ok(out.digest())
    }

    fn inode_fields(&self, id: InodeId, out: &mut impl io::Write) -> io::Result<()> {
        let Some(inode) = self.inode(id) else { return Ok(()) };
        for number in [inode.mode, inode.uid, inode.gid] {
            field(out, &number.to_be_bytes())?;
        }
        field(out, &inode.mtime.to_be_bytes())?;
        field(out, &crate::wide(inode.xattrs.len()).to_be_bytes())?;
        for (name, value) in &inode.xattrs {
            field(out, name)?;
            field(out, value)?;
        }
        match &inode.kind {
            Kind::Directory => field(out, b"directory"),
            Kind::Fifo => field(out, b"fifo"),
            Kind::Symlink(target) => field(out, b"symlink").and_then(|()| field(out, target)),
            Kind::File(content) => field(out, b"file").and_then(|()| field(out, &content_digest(content)?)),
        }
    }
}

fn field(out: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&crate::wide(bytes.len()).to_be_bytes())?;
    out.write_all(bytes)
}

fn content_digest(content: &Content) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < content.len() {
        let most = usize::try_from(content.len() - at).unwrap_or(usize::MAX).min(CHUNK);
        let chunk = buffer.get_mut(..most).unwrap_or_default();
        content.read_exact_at(chunk, at)?;
        hash.update(&*chunk);
        at = at.saturating_add(crate::wide(most));
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Inode;

    fn file(bytes: &[u8]) -> Inode {
        Inode { kind: Kind::File(Content::Bytes(bytes.into())), ..Inode::directory() }
    }

    type Change = fn(&mut Tree);

    fn put(tree: &mut Tree, inode: Inode) {
        tree.insert(b"a".to_vec(), inode);
    }

    #[test]
    fn every_difference_that_a_process_can_see_changes_the_digest() {
        let build = |change: &Change| {
            let mut tree = Tree::new();
            tree.insert(b"a".to_vec(), file(b"1"));
            tree.insert(b"b".to_vec(), file(b"1"));
            change(&mut tree);
            tree.digest().unwrap()
        };
        let changes: [Change; 7] = [
            |_| {},
            |tree| put(tree, file(b"2")),
            |tree| put(tree, Inode { mode: 0o700, ..file(b"1") }),
            |tree| put(tree, Inode { mtime: 1, ..file(b"1") }),
            |tree| put(tree, Inode { kind: Kind::Symlink(b"1".to_vec()), ..Inode::directory() }),
            |tree| tree.entries.extend([(b"b".to_vec(), InodeId(1))]),
            |tree| tree.entries.extend([(b"c".to_vec(), InodeId(0))]),
        ];
        let digests: std::collections::BTreeSet<_> = changes.iter().map(build).collect();
        assert_eq!(digests.len(), changes.len());
        assert_eq!(build(&changes[0]), build(&changes[0]));
    }
}
