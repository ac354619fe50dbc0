//! Parses and checks the names in a layer.
//!
//! Invariant: a checked name is a path in the tree: no empty component, `.`, `..` or zero byte, within Linux's limits.
//! Bytes that are not UTF-8 are allowed.

use super::EntryError;
use crate::limits::{self, MAX_NAME, MAX_PATH};

/// The prefix of a name that a layer removes (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The marker of a directory whose lower content is removed.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of AUFS's internal files, which engines ignore.
const AUFS: &[u8] = b".wh..wh.";

/// The effect of an entry, as determined by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Put a file at this path.
    Put(Vec<u8>),
    /// Hide what lower layers have at this path.
    Hide(Vec<u8>),
    /// Hide what lower layers have in this directory.
    HideContents(Vec<u8>),
    /// Do nothing.
    Ignore,
}

/// Parses the name of an entry.
pub(super) fn action(name: &[u8]) -> Result<Action, EntryError> {
    let path = clean(name)?;
    let (directory, base) = (crate::tree::parent(&path), crate::tree::base(&path));
    if base == OPAQUE {
        return Ok(Action::HideContents(directory.to_vec()));
    }
    if base.starts_with(AUFS) || path.starts_with(AUFS) {
        return Ok(Action::Ignore);
    }
    match base.strip_prefix(WHITEOUT) {
        // `.wh...` would hide the directory above.
        Some(b"" | b"." | b"..") => Err(EntryError::Whiteout),
        Some(hidden) => Ok(Action::Hide(crate::tree::join(directory, hidden))),
        None => Ok(Action::Put(path)),
    }
}

/// Normalizes a name to a path in the tree: `./a//b/`, `/a/b` and `c/../a/b` are all `a/b` (as in containerd, which
/// uses Go's `filepath.Clean`).
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, EntryError> {
    let mut path: Vec<&[u8]> = Vec::new();
    for part in parts(name)? {
        if part == b".." {
            path.pop().ok_or(EntryError::Traversal)?;
        } else {
            path.push(part);
        }
    }
    let path = path.join(&b'/');
    limit("bytes of a path", path.len(), MAX_PATH)?;
    Ok(path)
}

/// The target of a hard link, relative to the root. `..` is preserved: it is resolved later, and stops at the root.
pub(super) fn hard_link_target(link: &[u8]) -> Result<Vec<u8>, EntryError> {
    let path = parts(link)?.join(&b'/');
    limit("bytes of a link's target", path.len(), MAX_PATH)?;
    Ok(path)
}

/// The components of a name, without empty ones and `.`.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>, EntryError> {
    if name.is_empty() || name.contains(&0) {
        return Err(EntryError::Name);
    }
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| limit("bytes of a name", part.len(), MAX_NAME).map(|()| part)).collect()
}

/// Checks the target of a symbolic link: anything that Linux allows.
pub(crate) fn check_symlink(target: &[u8]) -> Result<(), EntryError> {
    if target.is_empty() || target.contains(&0) {
        return Err(EntryError::Name);
    }
    limit("bytes of a link's target", target.len(), MAX_PATH)
}

/// Whether the target of a link at `path`, taken literally, points above the root. A process that follows it ends up in
/// the root itself, as in a container: `..` of the root is the root.
pub(crate) fn escapes_root(path: &[u8], target: &[u8]) -> bool {
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

pub(super) fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), EntryError> {
    limits::check(what, crate::wide(found), crate::wide(limit)).map_err(EntryError::Limit)
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
            assert_eq!(action(name), Ok(Action::Put(path.to_vec())), "{name:?}");
        }
    }

    #[test]
    fn names_that_are_invalid_or_lead_above_the_root_are_refused() {
        let cases: [(&[u8], EntryError); 7] = [
            (b"", EntryError::Name),
            (b"a\0b", EntryError::Name),
            (b"../a", EntryError::Traversal),
            (b"a/../../b", EntryError::Traversal),
            (b"a/.wh...", EntryError::Whiteout),
            (b"a/.wh..", EntryError::Whiteout),
            (b".wh.", EntryError::Whiteout),
        ];
        for (name, error) in cases {
            assert_eq!(action(name), Err(error), "{}", name.escape_ascii());
        }
        assert!(matches!(clean(&[b'a'; 256]), Err(EntryError::Limit(_))));
        assert!(matches!(clean(&b"a/".repeat(2100)), Err(EntryError::Limit(_))));
    }

    #[test]
    fn whiteouts_are_recognized() {
        assert_eq!(action(b"a/.wh.b"), Ok(Action::Hide(b"a/b".to_vec())));
        assert_eq!(action(b"a/.wh..wh..opq"), Ok(Action::HideContents(b"a".to_vec())));
        assert_eq!(action(b".wh..wh..opq"), Ok(Action::HideContents(Vec::new())));
        assert_eq!(action(b".wh..wh.plnk/1.2"), Ok(Action::Ignore));
        assert_eq!(action(b".wh..wh.aufs"), Ok(Action::Ignore));
    }

    #[test]
    fn a_link_that_points_above_the_root_is_recognized() {
        for (path, target) in
            [("a/b", "/etc/x"), ("a/b", "../c"), ("a/b/c", "../../x"), ("a", "./b/../c"), ("a", "nowhere")]
        {
            assert!(!escapes_root(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
        for (path, target) in [("a", ".."), ("a/b", "../../etc"), ("a/b", "/../etc"), ("a", "b/../../c")] {
            assert!(escapes_root(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
            assert_eq!(check_symlink(target.as_bytes()), Ok(()));
        }
        assert!(check_symlink(b"").is_err() && check_symlink(b"a\0").is_err());
        assert!(check_symlink(&[b'a'; MAX_PATH + 1]).is_err());
    }
}
