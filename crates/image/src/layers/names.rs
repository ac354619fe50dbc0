//! The names in a layer, and what they may be.
//!
//! Its law: a name that leaves here is a path in the tree: no empty component, no `.`, no `..`, no zero, within Linux's
//! lengths. Bytes that are not UTF-8 are as good as any others.

use super::EntryFault;
use crate::limits::{self, MAX_NAME, MAX_PATH};

/// How the specification marks what a layer takes away (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// How it marks a directory whose lower content is all taken away.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself; engines pass over it.
const AUFS: &[u8] = b".wh..wh.";

/// What a name in a layer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// That something stands here.
    Place(Vec<u8>),
    /// That what lower layers have here is gone.
    Hide(Vec<u8>),
    /// That what lower layers have in this directory is gone.
    HideContents(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// Reads the name of an entry.
pub(super) fn asked(name: &[u8]) -> Result<Asked, EntryFault> {
    let path = clean(name)?;
    let (directory, base) = (crate::tree::parent(&path), crate::tree::base(&path));
    if base == OPAQUE {
        return Ok(Asked::HideContents(directory.to_vec()));
    }
    if base.starts_with(AUFS) || path.starts_with(AUFS) {
        return Ok(Asked::Nothing);
    }
    match base.strip_prefix(WHITEOUT) {
        // `.wh...` would hide the directory above.
        Some(b"" | b"." | b"..") => Err(EntryFault::Whiteout),
        Some(hidden) => Ok(Asked::Hide(crate::tree::join(directory, hidden))),
        None => Ok(Asked::Place(path)),
    }
}

/// A path in the tree from a name as it is written: `./a//b/`, `/a/b` and `c/../a/b` are all `a/b` (containerd cleans names
/// the same way, Go's `filepath.Clean`).
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, EntryFault> {
    let mut path: Vec<&[u8]> = Vec::new();
    for part in parts(name)? {
        if part == b".." {
            path.pop().ok_or(EntryFault::Traversal)?;
        } else {
            path.push(part);
        }
    }
    let path = path.join(&b'/');
    limit("bytes of a path", path.len(), MAX_PATH)?;
    Ok(path)
}

/// The target of a hard link, counted from the root. `..` stays in it: it is followed like everything else, and stops at
/// the root.
pub(super) fn hard_link_target(link: &[u8]) -> Result<Vec<u8>, EntryFault> {
    let path = parts(link)?.join(&b'/');
    limit("bytes of a link's target", path.len(), MAX_PATH)?;
    Ok(path)
}

/// The components of a name, without those that say nothing.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>, EntryFault> {
    if name.is_empty() || name.contains(&0) {
        return Err(EntryFault::Name);
    }
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| limit("bytes of a name", part.len(), MAX_NAME).map(|()| part)).collect()
}

/// Checks the target of a symbolic link: it may be anything that Linux takes.
pub(crate) fn check_symlink(target: &[u8]) -> Result<(), EntryFault> {
    if target.is_empty() || target.contains(&0) {
        return Err(EntryFault::Name);
    }
    limit("bytes of a link's target", target.len(), MAX_PATH)
}

/// Whether the target of a link that lies at `path`, read as it is written, climbs above the root. A process inside ends up
/// in the root itself, as in a container: `..` of a root is the root.
pub(crate) fn climbs(path: &[u8], target: &[u8]) -> bool {
    let mut depth = match target.first() {
        Some(b'/') => 0,
        _ => path.split(|byte| *byte == b'/').count().saturating_sub(1),
    };
    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    for part in parts {
        match (part, depth) {
            (b"..", 0) => return true,
            (b"..", _) => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

pub(super) fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), EntryFault> {
    limits::check(what, crate::wide(found), crate::wide(limit)).map_err(EntryFault::Limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_path_in_the_tree() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"c/../a/b", b"a/b"),
            (b"a/..", b""),
            (b"./a//b/", b"a/b"),
            (b"/a/b", b"a/b"),
            (b"./", b""),
            (b"/", b""),
            (b"a/...", b"a/..."),
            (b"\xff", b"\xff"),
        ];
        for (name, path) in cases {
            assert_eq!(asked(name), Ok(Asked::Place(path.to_vec())), "{name:?}");
        }
    }

    #[test]
    fn names_that_climb_or_say_nothing_are_refused() {
        let cases: [(&[u8], EntryFault); 7] = [
            (b"", EntryFault::Name),
            (b"a\0b", EntryFault::Name),
            (b"../a", EntryFault::Traversal),
            (b"a/../../b", EntryFault::Traversal),
            (b"a/.wh...", EntryFault::Whiteout),
            (b"a/.wh..", EntryFault::Whiteout),
            (b".wh.", EntryFault::Whiteout),
        ];
        for (name, fault) in cases {
            assert_eq!(asked(name), Err(fault), "{}", name.escape_ascii());
        }
        assert!(matches!(clean(&[b'a'; 256]), Err(EntryFault::Limit(_))));
        assert!(matches!(clean(&b"a/".repeat(2100)), Err(EntryFault::Limit(_))));
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        assert_eq!(asked(b"a/.wh.b"), Ok(Asked::Hide(b"a/b".to_vec())));
        assert_eq!(asked(b"a/.wh..wh..opq"), Ok(Asked::HideContents(b"a".to_vec())));
        assert_eq!(asked(b".wh..wh..opq"), Ok(Asked::HideContents(Vec::new())));
        assert_eq!(asked(b".wh..wh.plnk/1.2"), Ok(Asked::Nothing));
        assert_eq!(asked(b".wh..wh.aufs"), Ok(Asked::Nothing));
    }

    #[test]
    fn a_link_that_climbs_above_the_root_is_known() {
        for (path, target) in
            [("a/b", "/etc/x"), ("a/b", "../c"), ("a/b/c", "../../x"), ("a", "./b/../c"), ("a", "nowhere")]
        {
            assert!(!climbs(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
        for (path, target) in [("a", ".."), ("a/b", "../../etc"), ("a/b", "/../etc"), ("a", "b/../../c")] {
            assert!(climbs(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
            assert_eq!(check_symlink(target.as_bytes()), Ok(()));
        }
        assert!(check_symlink(b"").is_err() && check_symlink(b"a\0").is_err());
        assert!(check_symlink(&[b'a'; MAX_PATH + 1]).is_err());
    }
}
