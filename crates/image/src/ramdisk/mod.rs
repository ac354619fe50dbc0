//! The two ramdisks of an enclave: the operating system's and the application's.
//!
//! Invariant: the first depends on the release alone, the second on the application and its manifest alone, so that an
//! auditor needs to approve the first one only once. The length of each is a multiple of [`ALIGNMENT`], so that one can
//! follow the other in memory, compressed or not.

mod app;
mod list;
mod os;

use std::io::{self, Write};

use crate::cpio::WriteError;
use crate::digest::{Digest, Hashed};

pub use app::{AppRoot, read_manifest, write_app};
pub use list::{Kind, Line, ListError, parse};
pub use os::{FileRecord, OsError, OsRelease, kernel_path, pack_os, ramdisk_path, read_os, unpacked_size};

/// A ramdisk's length is a multiple of this. The kernel searches for the next archive at multiples of four
/// (`unpack_to_rootfs` in `init/initramfs.c`) and skips zeros between two archives.
pub const ALIGNMENT: u64 = 4;

/// zstd's level for ramdisk 1, which has a few megabytes and is packed once per release.
const OS_LEVEL: i32 = 19;
/// zstd's level for an application's files: a gigabyte takes seconds rather than minutes.
const APP_LEVEL: i32 = 6;

/// A written ramdisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its unpacked size in bytes.
    pub unpacked: u64,
}

/// Pads the output to the alignment, and returns its digest and size.
fn seal<W: Write>(mut out: Hashed<W>, unpacked: u64) -> Result<(W, Written), WriteError> {
    let missing = usize::try_from(out.count().wrapping_neg() % ALIGNMENT).unwrap_or_default();
    out.write_all([0; 4].get(..missing).unwrap_or_default()).map_err(WriteError::Write)?;
    out.flush().map_err(WriteError::Write)?;
    let size = out.count();
    let (inner, digest) = out.finish();
    Ok((inner, Written { digest, size, unpacked }))
}

fn compressed<W: Write>(out: W, level: i32) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    // The kernel verifies it, so that a damaged ramdisk is reported.
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests;
