//! The `newc` format of cpio, which the kernel unpacks at boot
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Invariant: the kernel unpacks everything that the writer writes. The kernel silently skips entries that it does not
//! support, so names and sizes that it would skip are refused here.

mod reader;
mod writer;

pub use reader::{Entry, ReadError, Reader};
pub use writer::{Header, WriteError, Writer};

/// The magic number of each entry.
pub(crate) const MAGIC: &[u8; 6] = b"070701";

/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// The length of an entry's header in bytes: the magic number and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;

/// Maximum length of a name with its final zero, and of a link target: `PATH_MAX`. `init/initramfs.c` skips longer
/// entries.
const MAX_NAME: usize = 4096;

/// Maximum size of a file: the largest eight-digit hexadecimal number.
const MAX_FILE: u64 = 0xffff_ffff;

/// The alignment of an entry's name and content.
const ALIGNMENT: u64 = 4;

/// File types as `stat(2)` has them.
mod file_type {
    pub(super) const MASK: u32 = 0o170_000;
    pub(super) const FIFO: u32 = 0o010_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const REGULAR: u32 = 0o100_000;
    pub(super) const SYMLINK: u32 = 0o120_000;
}

#[cfg(test)]
mod tests;
