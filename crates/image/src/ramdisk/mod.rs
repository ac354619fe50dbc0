//! The two ramdisks of an enclave: the operating system's and the application's.
//!
//! Its law: the first depends on the release alone, the second on the application and its manifest alone, so that an
//! auditor can bless the first one once. Each ends on a multiple of [`ALIGNMENT`], so that one can follow the other in
//! memory, compressed or not.

mod app;
mod list;
mod os;

use std::io::{self, Write};

use crate::cpio::WriteFault;
use crate::digest::{Digest, Hashed};

pub use app::{AppRoot, read_manifest, write_app};
pub use list::{Kind, Line, ListFault, parse};
pub use os::{FileRecord, OsFault, OsRelease, kernel_path, pack_os, ramdisk_path, read_os, unpacked_size};

/// What a ramdisk's length is a multiple of. The kernel looks for the next archive at multiples of four
/// (`unpack_to_rootfs` in `init/initramfs.c`); zeros between two archives are passed over.
pub const ALIGNMENT: u64 = 4;

/// How hard zstd tries on ramdisk 1, which has some megabytes and is packed once a release.
const OS_LEVEL: i32 = 19;
/// How hard zstd tries on an application's files: a gigabyte in some seconds rather than minutes.
const APP_LEVEL: i32 = 6;

/// A ramdisk that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many bytes the kernel unpacks it to.
    pub unpacked: u64,
}

/// Hashes what is written, and fills up to the alignment.
fn seal<W: Write>(mut out: Hashed<W>, unpacked: u64) -> Result<(W, Written), WriteFault> {
    let missing = usize::try_from(out.count().wrapping_neg() % ALIGNMENT).unwrap_or_default();
    out.write_all([0; 4].get(..missing).unwrap_or_default()).map_err(WriteFault::Write)?;
    out.flush().map_err(WriteFault::Write)?;
    let size = out.count();
    let (inner, digest) = out.finish();
    Ok((inner, Written { digest, size, unpacked }))
}

fn compressed<W: Write>(out: W, level: i32) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    // The kernel's unpacker checks it, and a ramdisk that is damaged should say so.
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests;
