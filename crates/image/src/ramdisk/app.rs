//! Ramdisk 2: the manifest, and the application's root.
//!
//! Invariant: the manifest in it is the canonical one, byte for byte.

use std::fs::File;
use std::io::{Read, Write};

use cloister_manifest::model::MAX_BYTES;

use super::{APP_LEVEL, Written, compressed, seal};
use crate::cpio::{self, Header, ReadError, WriteError, Writer};
use crate::digest::Hashed;
use crate::tree::{Content, Tree};

/// The directory in the ramdisk that contains everything else.
const FOLDER: &[u8] = b"cloister";

/// The path of the manifest.
const MANIFEST: &[u8] = b"cloister/manifest.json";

/// The application's root, in one of the two forms that init supports.
#[derive(Debug)]
pub enum AppRoot<'a> {
    /// As files in the ramdisk, which is compressed as a whole and unpacked into memory at boot.
    Plain(&'a Tree),
    /// As a compressed read-only file system that is mounted in place.
    Erofs {
        /// The file with the file system, at its beginning.
        image: File,
        /// Its length in bytes.
        size: u64,
    },
}

/// Writes ramdisk 2.
pub fn write_app<W: Write>(manifest: &[u8], root: AppRoot<'_>, out: W) -> Result<Written, WriteError> {
    let out = Hashed::new(out);
    let (_, written) = match root {
        AppRoot::Plain(tree) => {
            let mut writer = Writer::new(compressed(out, APP_LEVEL).map_err(WriteError::Write)?);
            start(&mut writer, manifest)?;
            writer.tree(b"cloister/root", tree)?;
            let unpacked = writer.position();
            seal(writer.finish()?.finish().map_err(WriteError::Write)?, unpacked)?
        }
        AppRoot::Erofs { mut image, size } => {
            let mut writer = Writer::new(out);
            start(&mut writer, manifest)?;
            writer.file(
                b"cloister/root.erofs",
                Header { mode: 0o444, ..Header::default() },
                size,
                &mut image,
            )?;
            let unpacked = writer.position();
            seal(writer.finish()?, unpacked)?
        }
    };
    Ok(written)
}

/// The manifest's bytes in a ramdisk 2; `None` if it is not at the position at which [`write_app`] writes it.
pub fn read_manifest(ramdisk: &Content) -> Result<Option<Vec<u8>>, ReadError> {
    let mut magic = [0; 6];
    ramdisk.reader().read_exact(&mut magic).map_err(ReadError::Read)?;
    if magic.starts_with(cpio::MAGIC) {
        return find_manifest(cpio::Reader::new(ramdisk.reader()));
    }
    let decoder = zstd::Decoder::new(ramdisk.reader()).map_err(ReadError::Read)?.single_frame();
    find_manifest(cpio::Reader::new(decoder))
}

fn find_manifest<R: Read>(mut reader: cpio::Reader<R>) -> Result<Option<Vec<u8>>, ReadError> {
    // The directory, then the manifest in it. Both are short; larger entries are not read.
    for _ in 0..2 {
        let Some(entry) = reader.next_entry()? else { return Ok(None) };
        if usize::try_from(entry.size).is_ok_and(|size| size > MAX_BYTES) {
            return Ok(None);
        }
        if entry.name == MANIFEST && entry.is_file() {
            let mut bytes = Vec::new();
            reader.data().read_to_end(&mut bytes).map_err(ReadError::Read)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn start<W: Write>(writer: &mut Writer<W>, manifest: &[u8]) -> Result<(), WriteError> {
    writer.directory(FOLDER, Header { mode: 0o755, ..Header::default() })?;
    let header = Header { mode: 0o444, ..Header::default() };
    writer.file(MANIFEST, header, crate::wide(manifest.len()), &mut &*manifest)
}
