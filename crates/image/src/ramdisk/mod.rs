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

pub use app::{AppRoot, write_app};
pub use list::{Kind, Line, ListFault, parse};
pub use os::{FileRecord, KernelRecord, OsFault, OsPack, OsRelease, pack_os, read_os};

/// What a ramdisk's length is a multiple of. The kernel looks for the next archive at multiples of four
/// (`unpack_to_rootfs` in `init/initramfs.c`); zeros between two archives are passed over.
pub const ALIGNMENT: u64 = 4;

/// How hard zstd tries. Ramdisks are packed once and unpacked at every boot; beyond this level a build takes twice the time
/// for one part in fifty.
const ZSTD_LEVEL: i32 = 12;

/// A ramdisk that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Hashes what is written, and fills up to the alignment.
fn seal<W: Write>(mut out: Hashed<W>) -> Result<(W, Written), WriteFault> {
    let missing = usize::try_from(out.count().wrapping_neg() % ALIGNMENT).unwrap_or_default();
    out.write_all([0; 4].get(..missing).unwrap_or_default()).map_err(WriteFault::Write)?;
    out.flush().map_err(WriteFault::Write)?;
    let size = out.count();
    let (inner, digest) = out.finish();
    Ok((inner, Written { digest, size }))
}

fn compressed<W: Write>(out: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    // The kernel's unpacker checks it, and a ramdisk that is damaged should say so.
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests;
