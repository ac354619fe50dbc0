//! Extended attributes: a header and entries after the inode.
//!
//! Invariant: names are stored as a number for the prefix and the rest of the name, in the order of the full names.
//! Attributes of an unknown family are refused by name, since the kernel would not show them.

use std::collections::BTreeMap;

use super::format::NAME_MAX;
use super::{Error, TreeError};

/// `EROFS_XATTR_INDEX_*`: the families that the kernel supports. ACLs have no name beyond the prefix.
const FAMILIES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Bytes of `erofs_xattr_ibody_header`.
pub(crate) const HEADER: usize = 12;

/// Maximum size of the body: `i_xattr_icount` counts in units of four bytes, and the header as one unit.
const BODY_MAX: usize = HEADER + 4 * 65_534;

/// Whether all attributes can be stored.
pub(crate) fn check(path: &[u8], xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Error> {
    for (name, value) in xattrs {
        let (_, rest) = family(name).ok_or_else(|| Error::xattr(path, name))?;
        if rest.len() > NAME_MAX || rest.contains(&0) || u16::try_from(value.len()).is_err() {
            return Err(Error::xattr(path, name));
        }
    }
    if body(xattrs).len() > BODY_MAX { Err(Error::tree(path, TreeError::Attributes)) } else { Ok(()) }
}

/// Bytes of the attributes after the inode.
pub(crate) fn length(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    u64::try_from(body(xattrs).len()).unwrap_or(u64::MAX)
}

/// The attributes after the inode, and `i_xattr_icount`.
pub(crate) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Vec<u8>, u16) {
    let bytes = body(xattrs);
    let words = bytes.len().checked_sub(HEADER).map_or(0, |entries| entries / 4 + 1);
    (bytes, u16::try_from(words).unwrap_or_default())
}

fn body(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    if xattrs.is_empty() {
        return Vec::new();
    }
    let mut bytes = vec![0; HEADER];
    for (name, value) in xattrs {
        let Some((number, rest)) = family(name) else { continue };
        bytes.push(u8::try_from(rest.len()).unwrap_or_default());
        bytes.push(number);
        bytes.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The number of a name's family and the rest of the name.
fn family(name: &[u8]) -> Option<(u8, &[u8])> {
    FAMILIES.iter().find_map(|(prefix, number)| {
        let rest = name.strip_prefix(*prefix)?;
        // A family that ends in a dot requires a rest, the others must not have one.
        (prefix.ends_with(b".") != rest.is_empty()).then_some((*number, rest))
    })
}

/// The full name from the stored form.
pub(crate) fn full_name(number: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let (prefix, _) = FAMILIES.iter().find(|(_, known)| *known == number)?;
    Some([*prefix, rest].concat())
}
