//! Symbolic links, resolved inside the tree.
//!
//! Invariant: a path resolves as it does for a process whose root is the tree. An absolute target starts at the tree's
//! root, and `..` in the root stays in the root, so no path leads out.

use super::{Inode, Kind, Tree, join, parent};

/// Maximum number of symbolic links followed for one path: the kernel's own limit (`MAXSYMLINKS`,
/// `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Why a path cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// A symbolic link loop, or more links than the kernel follows.
    #[error("more than {MAX_LINKS} levels of symbolic links")]
    TooManyLinks,
    /// A component of the path is neither a directory nor a link to one.
    #[error("`{}` is not a directory", crate::shown(.0))]
    NotADirectory(Vec<u8>),
}

impl Tree {
    /// Resolves every symbolic link in `path`. Missing components are taken literally: the result need not exist.
    pub fn follow(&self, path: &[u8]) -> Result<Vec<u8>, FollowError> {
        let mut left: Vec<Vec<u8>> = components(path);
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                at = parent(&at).to_vec();
                continue;
            }
            let next = join(&at, &name);
            match self.get(&next).map(|inode| &inode.kind) {
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FollowError::TooManyLinks);
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    left.extend(components(target));
                }
                Some(Kind::File(_) | Kind::Fifo) if !left.is_empty() => {
                    return Err(FollowError::NotADirectory(next));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// The inode at `path` after resolving every symbolic link in it.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<&Inode>, FollowError> {
        Ok(self.get(&self.follow(path)?))
    }
}

/// The components of a path in reverse order, without empty ones and `.`.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let mut add = |path: &str, kind: Kind| {
            tree.insert(path.as_bytes().to_vec(), Inode { kind, ..Inode::directory() });
        };
        add("usr", Kind::Directory);
        add("usr/lib", Kind::Directory);
        add("usr/lib/x", Kind::File(Content::Bytes((*b"x").into())));
        add("lib", Kind::Symlink(b"usr/lib".to_vec()));
        add("abs", Kind::Symlink(b"/usr".to_vec()));
        add("usr/up", Kind::Symlink(b"../../../../lib/x".to_vec()));
        add("round", Kind::Symlink(b"round".to_vec()));
        add("usr/dangling", Kind::Symlink(b"/new/place".to_vec()));
        tree
    }

    #[test]
    fn links_are_resolved_inside_the_root() {
        let cases = [
            ("/lib/x", "usr/lib/x"),
            ("abs/lib//./x", "usr/lib/x"),
            ("usr/up", "usr/lib/x"),
            ("../../usr", "usr"),
            ("usr/dangling/deeper", "new/place/deeper"),
            ("", ""),
        ];
        for (path, expected) in cases {
            let found = tree().follow(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&found), expected, "{path}");
        }
    }

    #[test]
    fn link_loops_and_files_as_parents_are_refused() {
        assert_eq!(tree().follow(b"round/a"), Err(FollowError::TooManyLinks));
        assert_eq!(tree().follow(b"lib/x/y"), Err(FollowError::NotADirectory(b"usr/lib/x".to_vec())));
    }
}
