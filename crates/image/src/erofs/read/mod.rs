//! Reads the images that the writer creates: to compare two builds, to list the contents of one, and to test the
//! writer.
//!
//! Invariant: every byte is treated as hostile. Positions are checked against the image's length, lengths against
//! limits, and a directory is entered once. Only the layouts that the writer uses are supported; other features are
//! named in the error.

mod bytes;
mod content;
mod directory;
mod inode;

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::format::{BLOCK, BLOCK_BITS, BLOCK_BYTES};
use super::format::{FileType, MAGIC, SUPER_OFFSET, checksum, incompat};
use crate::tree::Content;
use bytes::Fields;

/// An image with a valid superblock.
#[derive(Debug)]
pub struct Image {
    source: Content,
    /// Bytes of the file system; data after them is not part of it.
    length: u64,
    /// The position of the metadata in bytes.
    metadata: u64,
    root: u64,
    packed: u64,
    time: i64,
}

/// One name in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the root, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// Its node number: the same for all names of one inode.
    pub node: u64,
    /// Permission bits, set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// The inode's link count (for a directory: two, plus one for each directory in it).
    pub links: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its type.
    pub kind: EntryKind,
}

/// The type of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file and its size in bytes.
    File(u64),
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// Why an image cannot be read. All but the first two are problems of the image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file with the image could not be read.
    #[error("the EROFS image cannot be read")]
    Read(#[source] io::Error),
    /// A file's content could not be written to the output.
    #[error("the file's content cannot be written")]
    Write(#[source] io::Error),
    /// The image is not EROFS, truncated, or inconsistent.
    #[error("the EROFS image is damaged: {0}")]
    Damaged(&'static str),
    /// EROFS, but with a feature that the writer never uses.
    #[error("the EROFS image uses {0}, which Cloister's images never do")]
    Foreign(&'static str),
}

impl Image {
    /// Checks the superblock.
    pub fn open(source: Content) -> Result<Self, Error> {
        let mut block = vec![0; BLOCK];
        read_at(&source, source.len(), &mut block, 0)?;
        let (_, superblock) = block.split_at(SUPER_OFFSET);
        let mut fields = Fields::new(superblock);
        if fields.u32()? != MAGIC {
            return Err(Error::Damaged("it has no EROFS superblock"));
        }
        let expected = fields.u32()?;
        check_sum(superblock, expected)?;
        let _compat = fields.u32()?;
        if fields.bytes(2)? != [BLOCK_BITS, 0] {
            return Err(Error::Foreign("another block size or an extended superblock"));
        }
        let root = u64::from(fields.u16()?);
        fields.skip(8)?;
        let time = fields.i64()?;
        fields.skip(4)?;
        let length = u64::from(fields.u32()?) * BLOCK_BYTES;
        let metadata = u64::from(fields.u32()?) * BLOCK_BYTES;
        fields.skip(4 + 16 + 16)?;
        let features = fields.u32()?;
        let known = incompat::ZERO_PADDING | incompat::COMPRESSION_RECORDS | incompat::FRAGMENTS;
        if features & !known != 0 {
            return Err(Error::Foreign("other features"));
        }
        fields.skip(2 + 2 + 2 + 2 + 4)?;
        let packed = fields.u64()?;
        if length > source.len() || metadata >= length {
            return Err(Error::Damaged("it is shorter than its superblock states"));
        }
        Ok(Self { source, length, metadata, root, packed, time })
    }

    /// Calls `visit` for every name: a directory before its contents, names in byte order.
    pub fn walk(&self, mut visit: impl FnMut(&Entry) -> Result<(), Error>) -> Result<(), Error> {
        directory::walk(self, &mut visit)
    }

    /// Writes the content of a regular file; returns its length.
    pub fn copy(&self, node: u64, out: &mut impl Write) -> Result<u64, Error> {
        let inode = inode::read(self, node)?;
        if inode.file_type != FileType::Regular {
            return Err(Error::Damaged("a file's node number refers to another type"));
        }
        content::stream(self, &inode, &mut |bytes| out.write_all(bytes).map_err(Error::Write))?;
        Ok(inode.size)
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<(), Error> {
        read_at(&self.source, self.length, buffer, position)
    }
}

/// Reads within the first `length` bytes.
fn read_at(source: &Content, length: u64, buffer: &mut [u8], position: u64) -> Result<(), Error> {
    let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    if position.checked_add(wanted).is_none_or(|end| end > length) {
        return Err(Error::Damaged("a position is past its end"));
    }
    source.read_exact_at(buffer, position).map_err(Error::Read)
}

/// Verifies the superblock's checksum, which is computed with its own field zeroed.
fn check_sum(superblock: &[u8], expected: u32) -> Result<(), Error> {
    let mut copy = superblock.to_vec();
    if let Some(field) = copy.get_mut(4..8) {
        field.fill(0);
    }
    if checksum(&copy) == expected {
        Ok(())
    } else {
        Err(Error::Damaged("the superblock's checksum is wrong"))
    }
}
