//! The first pass: file contents, chunk after chunk, compressed on several threads and written in order.
//!
//! Its law: memory is bounded by the batch, whatever the size of the files; what is kept of each file is where its chunks
//! lie.

use std::io::{Seek, Write};

use super::codec::{CHUNK, Compression, Compressor, compress_all};
use super::format::BLOCK;
use super::plan::{Node, NodeId, Plan};
use super::sink::Sink;
use super::{Error, Options};

/// Chunks that are in memory at once: 4 MiB of input, enough to keep several threads busy.
const BATCH: usize = 64;

/// Where the content of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// It is short and stands behind the inode.
    Inline,
    /// In consecutive blocks from this one.
    Plain(u32),
    /// In clusters.
    Chunks(Vec<Chunk>),
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

/// Writes what does not stand behind an inode; returns where it is, for each node.
pub(crate) fn write<W: Write + Seek>(
    plan: &Plan<'_>,
    options: &Options,
    sink: &mut Sink<'_, W>,
) -> Result<Vec<Body>, Error> {
    let mut packer = Packer::new(plan, options, sink)?;
    for (id, node) in plan.nodes.iter().enumerate() {
        packer.take(id, node)?;
    }
    packer.flush()?;
    Ok(packer.bodies)
}

struct Packer<'p, 's, 'o, W> {
    plan: &'p Plan<'p>,
    sink: &'s mut Sink<'o, W>,
    compressors: Vec<Compressor>,
    /// Chunks that wait for their batch, and whose they are.
    chunks: Vec<Vec<u8>>,
    owners: Vec<NodeId>,
    bodies: Vec<Body>,
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
            bodies: vec![Body::Empty; plan.nodes.len()],
        })
    }

    fn take(&mut self, id: NodeId, node: &Node<'_>) -> Result<(), Error> {
        let size = node.size();
        if size == 0 {
            return Ok(());
        }
        if node.fits_inline(size, size, self.plan.time) {
            return self.set(id, Body::Inline);
        }
        if let Some(target) = node.target() {
            let block = self.sink.blocks(target)?;
            return self.set(id, Body::Plain(block));
        }
        self.read(id, node, size)
    }

    /// Cuts a file into chunks.
    fn read(&mut self, id: NodeId, node: &Node<'_>, size: u64) -> Result<(), Error> {
        let Some(content) = node.content() else { return Ok(()) };
        self.set(id, Body::Chunks(Vec::new()))?;
        let mut position = 0;
        while position < size {
            let length = usize::try_from(size - position).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = vec![0; length];
            let read = content.read_exact_at(&mut chunk, position);
            read.map_err(|source| Error::read(node.path, source))?;
            position += u64::try_from(length).unwrap_or(u64::MAX);
            self.chunks.push(chunk);
            self.owners.push(id);
            if self.chunks.len() >= BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Compresses and writes what waits.
    fn flush(&mut self) -> Result<(), Error> {
        let packed = compress_all(&self.chunks, &mut self.compressors).map_err(Error::Compress)?;
        let chunks = std::mem::take(&mut self.chunks);
        let owners = std::mem::take(&mut self.owners);
        for ((chunk, packed), owner) in chunks.iter().zip(packed).zip(owners) {
            let stored = store(self.sink, chunk, packed.as_deref())?;
            if let Some(Body::Chunks(chunks)) = self.bodies.get_mut(owner) {
                chunks.push(stored);
            }
        }
        Ok(())
    }

    fn set(&mut self, id: NodeId, body: Body) -> Result<(), Error> {
        let place = self.bodies.get_mut(id).ok_or(Error::TooLarge)?;
        *place = body;
        Ok(())
    }
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
