//! Reads directories and walks the whole tree.
//!
//! Invariant: each directory is entered once, and the total length of the paths is limited, so a walk terminates.

use std::collections::BTreeSet;

use super::bytes::Fields;
use super::inode::{self, Inode};
use super::{Entry, EntryKind, Error, Image, content};
use crate::erofs::format::{BLOCK, DIRENT, FileType, NAME_MAX};

/// Maximum total length of all paths: enough for two million files with paths of 128 bytes, and a limit for images
/// whose directories share their blocks.
const PATHS_MAX: usize = 256 << 20;

/// One entry of a directory.
#[derive(Debug)]
struct Name {
    bytes: Vec<u8>,
    node: u64,
    code: u8,
}

/// Visits every name below the root.
pub(crate) fn walk(image: &Image, visit: &mut impl FnMut(&Entry) -> Result<(), Error>) -> Result<(), Error> {
    let mut entered = BTreeSet::from([image.root]);
    let mut paths = 0;
    let mut waiting = vec![(Vec::new(), image.root, FileType::Directory.entry_code())];
    while let Some((path, node, code)) = waiting.pop() {
        let inode = inode::read(image, node)?;
        if inode.file_type.entry_code() != code {
            return Err(Error::Damaged("a directory entry and its inode differ in type"));
        }
        let names = if inode.file_type == FileType::Directory { list(image, &inode)? } else { Vec::new() };
        for name in names.into_iter().rev() {
            let child = join(&path, &name.bytes);
            paths += child.len();
            let again = name.code == FileType::Directory.entry_code() && !entered.insert(name.node);
            if again || paths > PATHS_MAX {
                return Err(Error::Damaged("directories contain each other"));
            }
            waiting.push((child, name.node, name.code));
        }
        visit(&entry(image, path, node, &inode)?)?;
    }
    Ok(())
}

fn entry(image: &Image, path: Vec<u8>, node: u64, inode: &Inode) -> Result<Entry, Error> {
    let kind = match inode.file_type {
        FileType::Directory => EntryKind::Directory,
        FileType::Regular => EntryKind::File(inode.size),
        FileType::Symlink => EntryKind::Symlink(content::short(image, inode)?),
        FileType::Fifo => EntryKind::Fifo,
    };
    Ok(Entry {
        path,
        node,
        mode: inode.permissions.into(),
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        links: inode.links,
        xattrs: inode.xattrs(image)?,
        kind,
    })
}

/// The names in a directory, without "." and "..". A directory with unsorted or invalid names is refused.
fn list(image: &Image, inode: &Inode) -> Result<Vec<Name>, Error> {
    if inode.layout == crate::erofs::format::Layout::Compressed {
        return Err(Error::Foreign("compressed directories"));
    }
    let mut names = Vec::new();
    content::stream(image, inode, &mut |bytes| {
        bytes.chunks(BLOCK).try_for_each(|block| list_block(block, &mut names))
    })?;
    if !names.is_sorted_by(|a: &Name, b: &Name| a.bytes < b.bytes) {
        return Err(Error::Damaged("a directory is not sorted"));
    }
    names.retain(|name| name.bytes != b"." && name.bytes != b"..");
    Ok(names)
}

fn list_block(block: &[u8], names: &mut Vec<Name>) -> Result<(), Error> {
    let mut fields = Fields::new(block);
    let mut entries = Vec::new();
    let mut first = BLOCK;
    while (entries.len() + 1) * DIRENT <= first {
        let (node, offset, code) = (fields.u64()?, usize::from(fields.u16()?), fields.u8()?);
        fields.skip(1)?;
        if entries.is_empty() {
            first = offset;
        }
        entries.push((node, offset, code));
    }
    let ends = entries.iter().skip(1).map(|(_, offset, _)| *offset).chain([block.len()]);
    for ((node, offset, code), end) in entries.iter().zip(ends) {
        let name = block.get(*offset..end).ok_or(Error::Damaged("a name is outside its directory"))?;
        // The last name of a full block ends at its first zero.
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        let usable = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(&b'/');
        if !usable {
            return Err(Error::Damaged("a directory contains an invalid name"));
        }
        names.push(Name { bytes: name, node: *node, code: *code });
    }
    Ok(())
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
