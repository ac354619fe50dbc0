//! The application's root as one EROFS image: read-only, compressed, paged in on demand.
//!
//! Invariant: the bytes depend on the tree and the options alone. Contents are streamed in batches, so memory is
//! bounded by the number of files, not by their size. A file that the kernel does not support is refused, and named in
//! the error.
//!
//! The image, in the order in which it is written (the superblock last):
//!
//! ```text
//! block 0      superblock and compression records
//! contents     clusters of files and of small files together, in the order of the first names
//! directories  blocks of entries that do not fit after their inode
//! metadata     inodes with attributes, then a short file's or directory's bytes or a compressed file's indexes
//! ```
//!
//! Reading images is left to [`read`], mounting them to init.

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
    /// Whether small files share chunks if the image is compressed, which makes it smaller. Supported by Linux since
    /// 6.1 and by erofs-utils since 1.6.
    pub pack_small: bool,
    /// Number of compression threads. The result does not depend on it.
    pub workers: NonZeroUsize,
}

impl Default for Options {
    /// LZ4 with shared chunks, on all processors. Measured with a Debian root (266 MB) on an emulated processor,
    /// Zstandard is 17 % smaller (105 MB instead of 126 MB) but starting Python from it takes 0.3 s longer.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { compression: Compression::Lz4, pack_small: true, workers: workers.min(WORKERS_MAX) }
    }
}

/// A batch has 64 chunks; with more threads than this, each has too few chunks to be worthwhile.
const WORKERS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// A written image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image.
    pub length: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Bytes of all files and symbolic links, uncompressed.
    pub content: u64,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree contains a file that EROFS does not support: the image's author must act.
    #[error("{path}: {error}")]
    Tree {
        /// The path, with unprintable bytes escaped.
        path: String,
        /// What is not supported.
        error: TreeError,
    },
    /// A file's content could not be read.
    #[error("{path}: the content cannot be read")]
    Read {
        /// The path, with unprintable bytes escaped.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The output could not be written: most likely, the disk is full.
    #[error("the EROFS image cannot be written")]
    Write(#[source] io::Error),
    /// The compressor failed for lack of memory.
    #[error("compression failed")]
    Compress(#[source] io::Error),
    /// A limit of the format is exceeded: 16 TiB, or four billion inodes.
    #[error("the tree is too large for an EROFS image")]
    TooLarge,
}

/// A property of a file that EROFS does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The root of the tree is missing or not a directory.
    #[error("the tree has no root directory")]
    NoRoot,
    /// The name refers to an inode that is not in the tree.
    #[error("the name refers to no inode")]
    NoInode,
    /// The parent is missing or not a directory.
    #[error("its parent is not a directory of the tree")]
    NoParent,
    /// A directory has two names.
    #[error("a directory cannot have a second name")]
    LinkedDirectory,
    /// More than 2^32 names.
    #[error("it has too many hard links")]
    TooManyLinks,
    /// Empty, ".", "..", or with a zero byte.
    #[error("the name is empty, `.`, `..` or contains a zero byte")]
    Name,
    /// Longer than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    LongName,
    /// An empty symbolic link, one of more than 4095 bytes or with a zero byte.
    #[error("the link's target is empty, longer than 4095 bytes or contains a zero byte")]
    Target,
    /// Mode bits beyond `0o7777`.
    #[error("the mode has bits beyond 07777")]
    Mode,
    /// An extended attribute of an unsupported family, or one that is too long.
    #[error("the extended attribute {0} is not supported or too long")]
    Attribute(String),
    /// More attributes than an inode can have.
    #[error("its extended attributes are longer than 256 KiB")]
    Attributes,
}

/// Writes a tree as an EROFS image at the current position of `out`, and leaves the position after it.
///
/// On an error `out` contains an incomplete image without a superblock.
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

/// The features that a reader must support.
fn features(contents: &data::Contents, plain: bool) -> u32 {
    let compression = if plain { 0 } else { incompat::ZERO_PADDING | incompat::COMPRESSION_RECORDS };
    let packed = if contents.packed.is_empty() { 0 } else { incompat::FRAGMENTS };
    compression | packed
}

impl Error {
    fn tree(path: &[u8], error: TreeError) -> Self {
        Self::Tree { path: printable(path), error }
    }

    fn xattr(path: &[u8], name: &[u8]) -> Self {
        Self::tree(path, TreeError::Attribute(name.escape_ascii().to_string()))
    }

    fn read(path: &[u8], source: io::Error) -> Self {
        Self::Read { path: printable(path), source }
    }
}

/// A path for messages, from the root.
fn printable(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}
