//! The application's root as one EROFS image: read-only, compressed, paged in on demand.
//!
//! Its law: the bytes depend on the tree and the options alone. Contents stream through in batches, so memory is bounded by
//! the number of files, not by their size. What the kernel cannot hold is refused by name.
//!
//! The image, in the order in which it is written (the superblock last):
//!
//! ```text
//! block 0      superblock and compression records
//! contents     clusters of files and of small files together, in the order of the first names
//! directories  blocks of entries that do not fit behind their inode
//! metadata     inodes with attributes, then a short file's or directory's bytes or a compressed file's indexes
//! ```
//!
//! It leaves reading back to [`read`] and mounting to init.

mod codec;
mod data;
mod directory;
mod format;
mod item;
mod metadata;
mod place;
mod plan;
pub mod read;
mod sink;
#[cfg(test)]
mod tests;
mod xattr;

use std::io::{self, Seek, Write};
use std::num::NonZeroUsize;

pub use codec::Compression;

use crate::tree::Tree;
use format::{Layout, SuperBlock, incompat};

/// How an image is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How file contents are stored.
    pub compression: Compression,
    /// Whether small files share chunks, when there is compression: a smaller image. The kernel reads that from 6.1 on,
    /// erofs-utils from 1.6 on.
    pub pack_small: bool,
    /// Threads that compress. The result does not depend on it.
    pub workers: NonZeroUsize,
}

impl Default for Options {
    /// LZ4 with shared chunks, on all processors. Measured with a Debian root (266 MB) on an emulated processor, Zstandard is
    /// 17 % smaller (105 MB instead of 126 MB) but starting Python from it takes 0.3 s longer.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { compression: Compression::Lz4, pack_small: true, workers: workers.min(WORKERS_MAX) }
    }
}

/// A batch is 64 chunks; with more threads than this each has too few to be worth a thread.
const WORKERS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image.
    pub length: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Bytes of all files and symbolic links, uncompressed.
    pub content: u64,
}

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image author has something in the tree that EROFS cannot hold.
    #[error("{path}: {fault}")]
    Tree {
        /// Where, with unprintable bytes escaped.
        path: String,
        /// What.
        fault: Fault,
    },
    /// A file's content could not be read.
    #[error("{path}: the content cannot be read")]
    Read {
        /// Which, with unprintable bytes escaped.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The output could not be written: the operator's disk, most likely.
    #[error("the EROFS image cannot be written")]
    Write(#[source] io::Error),
    /// The compressor failed, for want of memory.
    #[error("compression failed")]
    Compress(#[source] io::Error),
    /// More than the format's numbers can say: 16 TiB, or four thousand million inodes.
    #[error("the tree is too large for an EROFS image")]
    TooLarge,
}

/// What EROFS cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The tree has no directory as its root.
    #[error("the tree has no root directory")]
    NoRoot,
    /// The name stands for an inode that is not in the tree.
    #[error("the name stands for nothing")]
    NoInode,
    /// The directory the name is in is missing or is none.
    #[error("its parent is not a directory of the tree")]
    NoParent,
    /// A directory has two names.
    #[error("a directory cannot have a second name")]
    LinkedDirectory,
    /// More than 2^32 names.
    #[error("it has too many names")]
    TooManyLinks,
    /// Empty, ".", "..", or with a zero byte.
    #[error("the name cannot be used")]
    Name,
    /// Longer than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    LongName,
    /// An empty symbolic link, one of more than 4095 bytes or with a zero byte.
    #[error("the link's target is empty, longer than 4095 bytes or holds a zero byte")]
    Target,
    /// Mode bits beyond `0o7777`.
    #[error("the mode has bits beyond 07777")]
    Mode,
    /// An extended attribute of an unknown family, or one that is too long.
    #[error("the extended attribute {0} cannot be stored")]
    Attribute(String),
    /// More attributes than an inode can have.
    #[error("its extended attributes are longer than 256 KiB")]
    Attributes,
}

/// Writes a tree as an EROFS image at the current position of `out`, and leaves the position behind it.
///
/// On an error `out` holds an incomplete image without a superblock.
pub fn write(tree: &Tree, options: &Options, out: &mut (impl Write + Seek)) -> Result<Summary, Error> {
    let plan = plan::Plan::new(tree)?;
    let mut sink = sink::Sink::new(out)?;
    let contents = data::write(&plan, options, &mut sink)?;
    let metadata = metadata::write(&plan, &contents, options.compression, &mut sink)?;
    let (algorithms, records) = options.compression.records();
    let inodes = u64::try_from(plan.nodes.len()).map_err(|_| Error::TooLarge)?;
    let mut superblock = SuperBlock {
        incompat: features(&contents, records.is_empty()),
        algorithms,
        root: metadata.root,
        packed: metadata.packed,
        inodes,
        time: plan.time,
        blocks: sink.next_block()?,
        metadata: metadata.block,
        uuid: [0; 16],
    };
    superblock.uuid = format::uuid(&sink.digest(&superblock.encode(&records)));
    let length = sink.finish(&superblock.encode(&records))?;
    Ok(Summary { length, inodes, content: plan.nodes.iter().map(plan::Node::size).sum() })
}

/// What a reader must know.
fn features(contents: &data::Contents, plain: bool) -> u32 {
    let compression = if plain { 0 } else { incompat::ZERO_PADDING | incompat::COMPRESSION_RECORDS };
    let packed = if contents.packed.is_empty() { 0 } else { incompat::FRAGMENTS };
    compression | packed
}

impl Error {
    fn tree(path: &[u8], fault: Fault) -> Self {
        Self::Tree { path: printable(path), fault }
    }

    fn xattr(path: &[u8], name: &[u8]) -> Self {
        Self::tree(path, Fault::Attribute(name.escape_ascii().to_string()))
    }

    fn read(path: &[u8], source: io::Error) -> Self {
        Self::Read { path: printable(path), source }
    }
}

/// A path for messages, from the root.
fn printable(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}
