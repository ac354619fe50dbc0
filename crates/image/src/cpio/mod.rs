//! The `newc` form of cpio, which the kernel unpacks at boot (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Its law: what the writer writes the kernel unpacks, all of it. The kernel passes over an entry it does not like and says
//! nothing, so names and sizes it would pass over are refused here.

mod reader;
mod writer;

pub use reader::{Entry, ReadFault, Reader};
pub use writer::{Header, WriteFault, Writer};

/// Where an archive begins, and each of its entries.
pub(crate) const MAGIC: &[u8; 6] = b"070701";

/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// The length of an entry's header in bytes: the magic and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;

/// The longest name with its final zero, and the longest target of a link: `PATH_MAX`. Beyond, `init/initramfs.c` skips
/// the entry.
const MAX_NAME: usize = 4096;

/// The largest file: its size is one of those numbers.
const MAX_FILE: u64 = 0xffff_ffff;

/// What an entry's name and content are padded to.
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
