//! Ramdisk 2: the manifest, and the application's root.
//!
//! Its law: the manifest in it is the canonical one, byte for byte.

use std::fs::File;
use std::io::Write;

use super::{APP_LEVEL, Written, compressed, seal};
use crate::cpio::{Header, WriteFault, Writer};
use crate::digest::Hashed;
use crate::tree::Tree;

/// The folder in the ramdisk that holds all of it.
const FOLDER: &[u8] = b"cloister";

/// The application's root, in one of the two forms that init knows.
#[derive(Debug)]
pub enum AppRoot<'a> {
    /// As files in the ramdisk, which is compressed as a whole: small to send, and unpacked into memory at boot.
    Plain(&'a Tree),
    /// As one read-only file system, compressed in itself: read from where it lies.
    Erofs {
        /// The file with the file system, at its beginning.
        image: File,
        /// Its length in bytes.
        size: u64,
    },
}

/// Writes ramdisk 2.
pub fn write_app<W: Write>(manifest: &[u8], root: AppRoot<'_>, out: W) -> Result<Written, WriteFault> {
    let out = Hashed::new(out);
    let (_, written) = match root {
        AppRoot::Plain(tree) => {
            let mut writer = Writer::new(compressed(out, APP_LEVEL).map_err(WriteFault::Write)?);
            start(&mut writer, manifest)?;
            writer.tree(b"cloister/root", tree)?;
            let unpacked = writer.position();
            seal(writer.finish()?.finish().map_err(WriteFault::Write)?, unpacked)?
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

fn start<W: Write>(writer: &mut Writer<W>, manifest: &[u8]) -> Result<(), WriteFault> {
    writer.directory(FOLDER, Header { mode: 0o755, ..Header::default() })?;
    let header = Header { mode: 0o444, ..Header::default() };
    writer.file(b"cloister/manifest.json", header, crate::wide(manifest.len()), &mut &*manifest)
}
