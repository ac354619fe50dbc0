//! The second pass: directories and inodes, once it is known where contents are.
//!
//! Its law: sizes first, then places, then bytes. Node numbers are places, so nothing is written before all have one.

use std::io::{Seek, Write};

use super::codec::Compression;
use super::data::{Body, Chunk};
use super::directory::Listing;
use super::format::{
    BLOCK_BYTES, CLUSTER_BLOCKS, FileType, INDEX, INDEX_HEADER, Index, InodeRecord, Layout, SLOT, advise,
};
use super::place::Space;
use super::plan::{Node, NodeId, Plan};
use super::sink::Sink;
use super::{Error, xattr};

/// What the superblock must know of the metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    /// Its first block.
    pub(crate) block: u32,
    /// The root's node number.
    pub(crate) root: u16,
}

/// Writes directories and inodes behind the contents.
pub(crate) fn write<W: Write + Seek>(
    plan: &Plan<'_>,
    bodies: &[Body],
    compression: Compression,
    sink: &mut Sink<'_, W>,
) -> Result<Metadata, Error> {
    let items = plan.nodes.iter().zip(bodies).enumerate();
    let mut items = items.map(|(id, (node, body))| Item::new(plan, id, node, body)).collect::<Vec<_>>();
    let mut space = Space::new();
    for item in &mut items {
        item.position = space.take(item.length, item.whole);
    }
    write_listings(plan, &mut items, sink)?;
    let block = sink.next_block()?;
    let root = items.first().map_or(0, |root| root.position / SLOT);
    write_inodes(&items, plan.time, compression, sink)?;
    Ok(Metadata { block, root: u16::try_from(root).map_err(|_| Error::TooLarge)? })
}

/// An inode with all that stands behind it.
#[derive(Debug)]
struct Item<'a> {
    node: &'a Node<'a>,
    record: InodeRecord,
    body: &'a Body,
    /// A directory's entries.
    listing: Option<Listing<'a, NodeId>>,
    /// The end of a directory, once it is known.
    inline: Vec<u8>,
    length: u64,
    /// How many of the first bytes must lie in one block.
    whole: u64,
    /// From the start of the metadata.
    position: u64,
}

impl<'a> Item<'a> {
    fn new(plan: &'a Plan<'a>, id: NodeId, node: &'a Node<'a>, body: &'a Body) -> Self {
        let listing = (node.file_type == FileType::Directory).then(|| listing(id, node));
        let (full, last) = listing.as_ref().map_or((0, 0), Listing::lengths);
        let size = if listing.is_some() { full + last } else { node.size() };
        let mut item = Self {
            record: node.record(size),
            node,
            body,
            listing,
            inline: Vec::new(),
            length: 0,
            whole: 0,
            position: 0,
        };
        item.record.number = u32::try_from(id).unwrap_or(u32::MAX).saturating_add(1);
        item.lay_out(last, plan.time);
        item
    }

    /// Decides the layout and with it the length.
    fn lay_out(&mut self, last: u64, time: i64) {
        let head = self.node.head_length(self.record.size, time);
        self.whole = self.record.length(time);
        self.length = head;
        let inline = match self.body {
            Body::Inline => Some(self.record.size),
            _ if self.listing.is_some() && self.node.fits_inline(self.record.size, last, time) => Some(last),
            _ => None,
        };
        if let Some(rest) = inline {
            self.record.layout = Layout::Inline;
            self.length = head.saturating_add(rest);
            self.whole = self.length;
        } else if let Body::Chunks(chunks) = self.body {
            self.lay_out_chunks(chunks, head);
        }
        if let Body::Plain(block) = self.body {
            self.record.data = *block;
        }
    }

    /// A file none of whose chunks is compressed is plain: its blocks follow each other.
    fn lay_out_chunks(&mut self, chunks: &[Chunk], head: u64) {
        if chunks.iter().all(|chunk| !chunk.packed) {
            self.record.data = chunks.first().map_or(0, |chunk| chunk.block);
        } else {
            self.record.layout = Layout::Compressed;
            self.record.data = chunks.iter().map(|chunk| u32::from(chunk.blocks)).sum();
            let indexes = self.record.size.div_ceil(BLOCK_BYTES).saturating_mul(INDEX);
            self.length = head.next_multiple_of(8).saturating_add(INDEX_HEADER).saturating_add(indexes);
        }
    }

    /// The inode, its attributes and what follows them.
    fn encode(&self, time: i64, compression: Compression) -> Result<Vec<u8>, Error> {
        let (attributes, count) = xattr::encode(&self.node.inode.xattrs);
        let mut bytes = InodeRecord { xattr_count: count, ..self.record }.encode(time);
        bytes.extend(attributes);
        match self.record.layout {
            Layout::Plain => {}
            Layout::Inline => bytes.extend(self.rest()?),
            Layout::Compressed => self.encode_indexes(&mut bytes, compression),
        }
        Ok(bytes)
    }

    /// What stands behind an inode as it is.
    fn rest(&self) -> Result<Vec<u8>, Error> {
        if self.listing.is_some() {
            return Ok(self.inline.clone());
        }
        if let Some(target) = self.node.target() {
            return Ok(target.to_vec());
        }
        let mut bytes = vec![0; usize::try_from(self.record.size).map_err(|_| Error::TooLarge)?];
        if let Some(content) = self.node.content() {
            content.read_exact_at(&mut bytes, 0).map_err(|source| Error::read(self.node.path, source))?;
        }
        Ok(bytes)
    }

    fn encode_indexes(&self, bytes: &mut Vec<u8>, compression: Compression) {
        let Body::Chunks(chunks) = self.body else { return };
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([0; 4]);
        bytes.extend(advise::BIG_CLUSTERS.to_le_bytes());
        bytes.extend([compression.algorithm(), 0]);
        bytes.extend([0; 8]);
        for index in indexes(chunks, self.record.size) {
            bytes.extend(index.encode());
        }
    }
}

/// The names of a directory with the nodes they stand for.
fn listing<'a>(id: NodeId, node: &Node<'a>) -> Listing<'a, NodeId> {
    let mut entries = node.children.clone();
    entries.push((b".", id));
    entries.push((b"..", node.parent));
    Listing::new(entries)
}

/// An index for each block of content.
fn indexes(chunks: &[Chunk], size: u64) -> Vec<Index> {
    let mut left = size.div_ceil(BLOCK_BYTES);
    let mut indexes = Vec::new();
    for chunk in chunks {
        let covered = left.min(u64::from(super::codec::CHUNK_BLOCKS));
        left -= covered;
        let covered = u16::try_from(covered).unwrap_or(u16::MAX);
        if chunk.packed {
            indexes.extend(cluster(*chunk, covered));
        } else {
            indexes.extend((chunk.block..).take(usize::from(covered)).map(|block| Index::Plain { block }));
        }
    }
    indexes
}

/// The indexes of a compressed chunk that covers so many blocks of content.
fn cluster(chunk: Chunk, covered: u16) -> impl Iterator<Item = Index> {
    let rest = (1..covered).map(move |distance| Index::Rest {
        before: if distance == 1 { CLUSTER_BLOCKS | chunk.blocks } else { distance },
        after: covered - distance,
    });
    std::iter::once(Index::Head { block: chunk.block }).chain(rest)
}

/// Writes the blocks of directories that do not stand behind their inodes.
fn write_listings<W: Write + Seek>(
    plan: &Plan<'_>,
    items: &mut [Item<'_>],
    sink: &mut Sink<'_, W>,
) -> Result<(), Error> {
    let numbers: Vec<u64> = items.iter().map(|item| item.position / SLOT).collect();
    let target = |id: &NodeId| {
        let number = numbers.get(*id).copied().unwrap_or_default();
        (number, plan.nodes.get(*id).map_or(FileType::Regular, |node| node.file_type))
    };
    for item in items {
        let Some(listing) = &item.listing else { continue };
        let mut blocks = listing.encode(target);
        if item.record.layout == Layout::Inline {
            item.inline = blocks.pop().unwrap_or_default();
        }
        item.record.data = sink.next_block()?;
        for block in blocks {
            sink.blocks(&block)?;
        }
    }
    Ok(())
}

/// Writes inodes in the order of their places.
fn write_inodes<W: Write + Seek>(
    items: &[Item<'_>],
    time: i64,
    compression: Compression,
    sink: &mut Sink<'_, W>,
) -> Result<(), Error> {
    let start = sink.length();
    let mut order: Vec<&Item<'_>> = items.iter().collect();
    order.sort_by_key(|item| item.position);
    for item in order {
        sink.zeros_until(start.saturating_add(item.position))?;
        sink.write(&item.encode(time, compression)?)?;
    }
    sink.fill()
}
