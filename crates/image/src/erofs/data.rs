//! The first pass: writes file contents, in chunks that are compressed on several threads and written in order.
//!
//! Invariant: memory is bounded by the batch, regardless of file sizes; only the positions of the chunks are stored for
//! each file.

use std::io::{Seek, Write};

use super::codec::{CHUNK, Compression, Compressor, compress_all};
use super::format::BLOCK;
use super::plan::{Node, NodeId, Plan};
use super::sink::Sink;
use super::{Error, Options};
use crate::tree::Content;

/// Chunks in memory at once: 8 MiB of input, enough to keep several threads busy.
const BATCH: usize = 64;

/// Files up to this length share chunks. Measured on a Debian root with Python: without it the image is 8 % larger;
/// with 128 KiB it would be another 1 % smaller, but data read from shared chunks is in memory twice until it is
/// reclaimed.
const SMALL: u64 = 32 << 10;

/// The location of a node's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The node has no content.
    Empty,
    /// The content is short and follows the inode.
    Inline,
    /// In consecutive blocks from this one.
    Plain(u32),
    /// In clusters.
    Chunks(Vec<Chunk>),
    /// Among the small files, from this byte.
    Packed(u64),
}

/// One stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its first block.
    pub(crate) block: u32,
    /// Its blocks on disk.
    pub(crate) blocks: u16,
    /// Whether it is compressed.
    pub(crate) packed: bool,
}

/// The locations of all contents.
#[derive(Debug)]
pub(crate) struct Contents {
    /// For each node.
    pub(crate) bodies: Vec<Body>,
    /// The chunks of small files.
    pub(crate) packed: Vec<Chunk>,
    /// Bytes of small files.
    pub(crate) packed_size: u64,
}

/// Writes all contents that do not follow an inode.
pub(crate) fn write<W: Write + Seek>(
    plan: &Plan<'_>,
    options: &Options,
    sink: &mut Sink<'_, W>,
) -> Result<Contents, Error> {
    let mut packer = Packer::new(plan, options, sink)?;
    for (id, node) in plan.nodes.iter().enumerate() {
        packer.take(id, node)?;
    }
    packer.finish()
}

struct Packer<'p, 's, 'o, W> {
    plan: &'p Plan<'p>,
    sink: &'s mut Sink<'o, W>,
    compressors: Vec<Compressor>,
    /// Chunks of the current batch, and their owners; chunks of small files have none.
    chunks: Vec<Vec<u8>>,
    owners: Vec<Option<NodeId>>,
    /// Small files that do not fill a chunk yet.
    small: Vec<u8>,
    /// Whether small files share chunks.
    pack_small: bool,
    contents: Contents,
}

impl<'p, 's, 'o, W: Write + Seek> Packer<'p, 's, 'o, W> {
    fn new(plan: &'p Plan<'p>, options: &Options, sink: &'s mut Sink<'o, W>) -> Result<Self, Error> {
        let workers = if options.compression == Compression::None { 1 } else { options.workers.get() };
        let compressors = (0..workers).map(|_| options.compression.start()).collect::<Result<_, _>>();
        Ok(Self {
            plan,
            sink,
            compressors: compressors.map_err(Error::Compress)?,
            chunks: Vec::with_capacity(BATCH),
            owners: Vec::with_capacity(BATCH),
            small: Vec::with_capacity(CHUNK),
            pack_small: options.pack_small && options.compression != Compression::None,
            contents: Contents {
                bodies: vec![Body::Empty; plan.nodes.len()],
                packed: Vec::new(),
                packed_size: 0,
            },
        })
    }

    fn take(&mut self, id: NodeId, node: &Node<'_>) -> Result<(), Error> {
        let size = node.size();
        if size == 0 {
            return Ok(());
        }
        let Some(content) = node.content() else { return self.take_target(id, node, size) };
        let inline = node.fits_inline(size, size, self.plan.time);
        if self.pack_small && size <= SMALL {
            self.read_small(id, node, content)
        } else if inline {
            self.set(id, Body::Inline)
        } else {
            self.read(id, node, content)
        }
    }

    /// Symbolic links are never compressed: the kernel reads most of them directly from the inode.
    fn take_target(&mut self, id: NodeId, node: &Node<'_>, size: u64) -> Result<(), Error> {
        let body = match node.target() {
            Some(target) if !node.fits_inline(size, size, self.plan.time) => {
                Body::Plain(self.sink.blocks(target)?)
            }
            _ => Body::Inline,
        };
        self.set(id, body)
    }

    /// Splits a file into chunks.
    fn read(&mut self, id: NodeId, node: &Node<'_>, content: &Content) -> Result<(), Error> {
        self.set(id, Body::Chunks(Vec::new()))?;
        let mut position = 0;
        while position < content.len() {
            let length = usize::try_from(content.len() - position).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = vec![0; length];
            read_at(node, content, &mut chunk, position)?;
            position += u64::try_from(length).unwrap_or(u64::MAX);
            self.push(Some(id), chunk)?;
        }
        Ok(())
    }

    /// Adds a file to those that share chunks.
    fn read_small(&mut self, id: NodeId, node: &Node<'_>, content: &Content) -> Result<(), Error> {
        self.set(id, Body::Packed(self.contents.packed_size))?;
        self.contents.packed_size += content.len();
        let start = self.small.len();
        self.small.resize(start + usize::try_from(content.len()).unwrap_or_default(), 0);
        read_at(node, content, self.small.get_mut(start..).unwrap_or_default(), 0)?;
        if self.small.len() >= CHUNK {
            let rest = self.small.split_off(CHUNK);
            let chunk = std::mem::replace(&mut self.small, rest);
            self.push(None, chunk)?;
        }
        Ok(())
    }

    fn push(&mut self, owner: Option<NodeId>, chunk: Vec<u8>) -> Result<(), Error> {
        self.chunks.push(chunk);
        self.owners.push(owner);
        if self.chunks.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Contents, Error> {
        if !self.small.is_empty() {
            let rest = std::mem::take(&mut self.small);
            self.push(None, rest)?;
        }
        self.flush()?;
        Ok(self.contents)
    }

    /// Compresses and writes the current batch.
    fn flush(&mut self) -> Result<(), Error> {
        let packed = compress_all(&self.chunks, &mut self.compressors).map_err(Error::Compress)?;
        let chunks = std::mem::take(&mut self.chunks);
        let owners = std::mem::take(&mut self.owners);
        for ((chunk, packed), owner) in chunks.iter().zip(packed).zip(owners) {
            let stored = store(self.sink, chunk, packed.as_deref())?;
            match owner.map(|owner| self.contents.bodies.get_mut(owner)) {
                None => self.contents.packed.push(stored),
                Some(Some(Body::Chunks(chunks))) => chunks.push(stored),
                Some(_) => return Err(Error::TooLarge),
            }
        }
        Ok(())
    }

    fn set(&mut self, id: NodeId, body: Body) -> Result<(), Error> {
        let place = self.contents.bodies.get_mut(id).ok_or(Error::TooLarge)?;
        *place = body;
        Ok(())
    }
}

fn read_at(node: &Node<'_>, content: &Content, bytes: &mut [u8], position: u64) -> Result<(), Error> {
    content.read_exact_at(bytes, position).map_err(|source| Error::read(node.path, source))
}

fn store<W: Write + Seek>(
    sink: &mut Sink<'_, W>,
    chunk: &[u8],
    packed: Option<&[u8]>,
) -> Result<Chunk, Error> {
    let length = packed.map_or(chunk.len(), <[u8]>::len);
    let blocks = u16::try_from(length.div_ceil(BLOCK)).map_err(|_| Error::TooLarge)?;
    let block = match packed {
        Some(bytes) => sink.blocks_to_the_end(bytes)?,
        None => sink.blocks(chunk)?,
    };
    Ok(Chunk { block, blocks, packed: packed.is_some() })
}
