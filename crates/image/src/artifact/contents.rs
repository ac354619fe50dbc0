//! The contents of an artifact's application root, file by file.
//!
//! Invariant: they are read from the ramdisk that boots, not from a separate list, so that an explanation describes
//! what is measured.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use super::{Artifact, ArtifactError, Part};
use crate::cpio::{self, ReadError};
use crate::digest::{Digest, Hashed};
use crate::erofs::read as erofs;
use crate::limits::MAX_PATH;
use crate::oci::Blob;
use crate::tree::Xattrs;

/// The root as files in the archive.
const PLAIN: &[u8] = b"cloister/root";
/// The root as a file system.
const EROFS: &[u8] = b"cloister/root.erofs";

/// Every file in a root by its path.
pub type Contents = BTreeMap<Vec<u8>, Item>;

/// A file, directory, link or pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Its type.
    pub kind: ItemKind,
}

/// The type of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// The digest of its content.
        digest: Digest,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// Why an artifact's root cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Its ramdisk is damaged: the artifact must be built again.
    #[error("the application's ramdisk is damaged")]
    Ramdisk(#[source] ReadError),
    /// Its file system is damaged: the artifact must be built again.
    #[error("the application's file system is damaged")]
    Erofs(#[source] erofs::Error),
    /// The ramdisk contains no root: the artifact must be built again.
    #[error("the application's ramdisk contains no root")]
    NoRoot,
    /// A file cannot be read: a problem of this host.
    #[error("the application's ramdisk cannot be read")]
    Read(#[source] io::Error),
}

impl Artifact {
    /// Reads the application's root and hashes every file in it.
    pub fn contents(&self) -> Result<Contents, ContentsError> {
        let blob = self.part(Part::AppRamdisk)?;
        let mut magic = [0; 6];
        blob.reader().read_exact(&mut magic).map_err(ContentsError::Read)?;
        if !magic.starts_with(cpio::MAGIC) {
            let decoder = zstd::Decoder::new(blob.reader()).map_err(ContentsError::Read)?.single_frame();
            return plain(decoder);
        }
        file_system(&blob)
    }
}

/// Finds the file system in an uncompressed archive.
fn file_system(blob: &Blob) -> Result<Contents, ContentsError> {
    let mut reader = cpio::Reader::new(blob.reader());
    while let Some(entry) = reader.next_entry().map_err(ContentsError::Ramdisk)? {
        if entry.name == EROFS {
            let part = blob.part(reader.position(), u64::from(entry.size)).ok_or(ContentsError::NoRoot)?;
            return walk(&part).map_err(ContentsError::Erofs);
        }
    }
    Err(ContentsError::NoRoot)
}

fn walk(part: &Blob) -> Result<Contents, erofs::Error> {
    let image = erofs::Image::open(part.content())?;
    let mut contents = Contents::new();
    let mut digests: HashMap<u64, Digest> = HashMap::new();
    image.walk(|entry| {
        let kind = match &entry.kind {
            erofs::EntryKind::Directory => ItemKind::Directory,
            erofs::EntryKind::Fifo => ItemKind::Fifo,
            erofs::EntryKind::Symlink(target) => ItemKind::Symlink(target.clone()),
            erofs::EntryKind::File(size) => {
                let digest = if let Some(known) = digests.get(&entry.node) {
                    *known
                } else {
                    let mut hash = Hashed::new(io::sink());
                    image.copy(entry.node, &mut hash)?;
                    hash.digest()
                };
                if entry.links > 1 {
                    digests.insert(entry.node, digest);
                }
                ItemKind::File { size: *size, digest }
            }
        };
        let (mode, uid, gid, mtime) = (entry.mode, entry.uid, entry.gid, entry.mtime);
        contents
            .insert(entry.path.clone(), Item { mode, uid, gid, mtime, xattrs: entry.xattrs.clone(), kind });
        Ok(())
    })?;
    Ok(contents)
}

/// Reads a root that is stored in the archive as files.
fn plain(source: impl Read) -> Result<Contents, ContentsError> {
    let mut reader = cpio::Reader::new(source);
    let mut contents = Contents::new();
    // The content of a file with several names is stored with the first one.
    let mut files: HashMap<u32, ItemKind> = HashMap::new();
    while let Some(entry) = reader.next_entry().map_err(ContentsError::Ramdisk)? {
        let Some(path) = entry.name.strip_prefix(PLAIN) else { continue };
        let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let kind = if entry.is_directory() {
            ItemKind::Directory
        } else if entry.is_symlink() {
            let mut target = Vec::new();
            let limit = crate::wide(MAX_PATH);
            reader.data().take(limit).read_to_end(&mut target).map_err(ContentsError::Read)?;
            ItemKind::Symlink(target)
        } else if entry.is_file() {
            match files.get(&entry.inode).filter(|_| entry.links > 1) {
                Some(known) => known.clone(),
                None => hash_file(&entry, &mut reader.data())?,
            }
        } else {
            ItemKind::Fifo
        };
        if entry.links > 1 && entry.is_file() {
            files.insert(entry.inode, kind.clone());
        }
        let (mode, uid, gid, mtime) = (entry.mode & 0o7777, entry.uid, entry.gid, i64::from(entry.mtime));
        contents.insert(path, Item { mode, uid, gid, mtime, xattrs: Xattrs::new(), kind });
    }
    if contents.is_empty() { Err(ContentsError::NoRoot) } else { Ok(contents) }
}

fn hash_file(entry: &cpio::Entry, data: &mut impl Read) -> Result<ItemKind, ContentsError> {
    let mut hash = Hashed::new(io::sink());
    io::copy(data, &mut hash).map_err(ContentsError::Read)?;
    Ok(ItemKind::File { size: u64::from(entry.size), digest: hash.digest() })
}
