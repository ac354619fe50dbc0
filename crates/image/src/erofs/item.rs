//! An inode with the data that follows it: attributes, then a short content or the indexes of a compressed one.
//!
//! Invariant: `length` is exactly the number of bytes that `write` writes; an item is written only after it has a
//! position.

use std::io::{Seek, Write};

use super::codec::{CHUNK_BLOCKS, Compression};
use super::data::{Body, Chunk, Contents};
use super::directory::Listing;
use super::format::{
    BLOCK_BYTES, CLUSTER_BLOCKS, FileType, INDEX, INDEX_HEADER, Index, InodeRecord, Layout, WHOLE_FRAGMENT,
    advise,
};
use super::plan::{Node, NodeId, Plan};
use super::sink::Sink;
use super::{Error, xattr};

/// The target of a directory entry: a node number and a type.
pub(crate) type Target = (u64, FileType);

/// Bytes of the map header, which is all that follows the inode of a packed file.
const MAP_HEADER: u64 = 8;

/// An inode to be written.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// The node it belongs to; the packed inode has none.
    node: Option<&'a Node<'a>>,
    pub(crate) record: InodeRecord,
    attributes: Vec<u8>,
    tail: Tail<'a>,
    /// A directory's entries.
    pub(crate) listing: Option<Listing<'a, NodeId>>,
    /// The end of a directory, once node numbers are known.
    pub(crate) inline: Vec<u8>,
    pub(crate) length: u64,
    /// How many of the first bytes must be in one block.
    pub(crate) whole: u64,
    /// Offset from the start of the metadata.
    pub(crate) position: u64,
}

/// The data that follows the attributes.
#[derive(Clone, Copy, Debug)]
enum Tail<'a> {
    Nothing,
    Inline,
    Indexes(&'a [Chunk]),
    Packed(u64),
}

impl<'a> Item<'a> {
    /// The inode of a node whose content is in `body`.
    pub(crate) fn new(plan: &'a Plan<'a>, id: NodeId, node: &'a Node<'a>, body: &'a Body) -> Self {
        let listing = (node.file_type == FileType::Directory).then(|| listing(id, node));
        let lengths = listing.as_ref().map(Listing::lengths);
        let size = lengths.map_or(node.size(), |(full, last)| full.saturating_add(last));
        let mut item = Self::bare(Some(node), node.record(size), id);
        (item.attributes, item.record.xattr_count) = xattr::encode(&node.inode.xattrs);
        item.listing = listing;
        match (body, lengths) {
            (_, Some((_, last))) if node.fits_inline(size, last, plan.time) => {
                item.end_inline(last, plan.time);
            }
            (Body::Inline, None) => item.end_inline(size, plan.time),
            (Body::Chunks(chunks), None) => item.end_chunks(chunks, plan.time),
            (Body::Packed(offset), None) => item.end(Tail::Packed(*offset), MAP_HEADER, plan.time),
            (Body::Plain(block), None) => {
                item.record.data = *block;
                item.end(Tail::Nothing, 0, plan.time);
            }
            _ => item.end(Tail::Nothing, 0, plan.time),
        }
        item
    }

    /// The inode that contains all small files.
    pub(crate) fn packed(contents: &'a Contents, id: NodeId, time: i64) -> Self {
        let record = InodeRecord {
            layout: Layout::Plain,
            file_type: FileType::Regular,
            permissions: 0,
            xattr_count: 0,
            links: 1,
            size: contents.packed_size,
            data: 0,
            number: 0,
            uid: 0,
            gid: 0,
            mtime: time,
        };
        let mut item = Self::bare(None, record, id);
        item.end_chunks(&contents.packed, time);
        item
    }

    fn bare(node: Option<&'a Node<'a>>, record: InodeRecord, id: NodeId) -> Self {
        let number = u32::try_from(id).unwrap_or(u32::MAX).saturating_add(1);
        Self {
            node,
            record: InodeRecord { number, ..record },
            attributes: Vec::new(),
            tail: Tail::Nothing,
            listing: None,
            inline: Vec::new(),
            length: 0,
            whole: 0,
            position: 0,
        }
    }

    fn end_inline(&mut self, rest: u64, time: i64) {
        self.record.layout = Layout::Inline;
        self.end(Tail::Inline, rest, time);
        self.whole = self.length;
    }

    /// A file without compressed chunks is plain: its blocks are consecutive.
    fn end_chunks(&mut self, chunks: &'a [Chunk], time: i64) {
        if chunks.iter().all(|chunk| !chunk.packed) {
            self.record.data = chunks.first().map_or(0, |chunk| chunk.block);
            return self.end(Tail::Nothing, 0, time);
        }
        self.record.data = chunks.iter().map(|chunk| u32::from(chunk.blocks)).sum();
        let indexes = self.record.size.div_ceil(BLOCK_BYTES).saturating_mul(INDEX);
        self.end(Tail::Indexes(chunks), INDEX_HEADER.saturating_add(indexes), time);
    }

    fn end(&mut self, tail: Tail<'a>, rest: u64, time: i64) {
        let attributes = u64::try_from(self.attributes.len()).unwrap_or(u64::MAX);
        self.whole = self.record.length(time);
        let head = self.whole.saturating_add(attributes);
        if matches!(tail, Tail::Indexes(_) | Tail::Packed(_)) {
            self.record.layout = Layout::Compressed;
            self.length = head.next_multiple_of(MAP_HEADER).saturating_add(rest);
        } else {
            self.length = head.saturating_add(rest);
        }
        self.tail = tail;
    }

    /// Writes the inode and the data that follows it.
    pub(crate) fn write<W: Write + Seek>(
        &self,
        time: i64,
        compression: Compression,
        sink: &mut Sink<'_, W>,
    ) -> Result<(), Error> {
        sink.write(&self.record.encode(time))?;
        sink.write(&self.attributes)?;
        match self.tail {
            Tail::Nothing => Ok(()),
            Tail::Inline => sink.write(&self.rest()?),
            Tail::Packed(offset) => {
                sink.zeros_until(sink.length().next_multiple_of(MAP_HEADER))?;
                sink.write(&(offset | WHOLE_FRAGMENT).to_le_bytes())
            }
            Tail::Indexes(chunks) => {
                sink.zeros_until(sink.length().next_multiple_of(MAP_HEADER))?;
                sink.write(&map_header(compression))?;
                write_indexes(chunks, self.record.size, sink)
            }
        }
    }

    /// The uncompressed data that follows the inode.
    fn rest(&self) -> Result<Vec<u8>, Error> {
        let Some(node) = self.node.filter(|_| self.listing.is_none()) else { return Ok(self.inline.clone()) };
        if let Some(target) = node.target() {
            return Ok(target.to_vec());
        }
        let mut bytes = vec![0; usize::try_from(self.record.size).map_err(|_| Error::TooLarge)?];
        if let Some(content) = node.content() {
            content.read_exact_at(&mut bytes, 0).map_err(|source| Error::read(node.path, source))?;
        }
        Ok(bytes)
    }
}

/// The names in a directory and the nodes they refer to.
fn listing<'a>(id: NodeId, node: &Node<'a>) -> Listing<'a, NodeId> {
    let mut entries = node.children.clone();
    entries.push((b".", id));
    entries.push((b"..", node.parent));
    Listing::new(entries)
}

/// `z_erofs_map_header` and the eight bytes before the first index.
fn map_header(compression: Compression) -> [u8; 16] {
    let [low, high] = advise::BIG_CLUSTERS.to_le_bytes();
    [0, 0, 0, 0, low, high, compression.algorithm(), 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Writes one index per block of content.
fn write_indexes<W: Write + Seek>(chunks: &[Chunk], size: u64, sink: &mut Sink<'_, W>) -> Result<(), Error> {
    let mut left = size.div_ceil(BLOCK_BYTES);
    for chunk in chunks {
        let covered = u16::try_from(left).unwrap_or(u16::MAX).min(CHUNK_BLOCKS);
        left -= u64::from(covered);
        for index in indexes(*chunk, covered) {
            sink.write(&index.encode())?;
        }
    }
    Ok(())
}

/// The indexes of a chunk that covers this many blocks of content.
fn indexes(chunk: Chunk, covered: u16) -> impl Iterator<Item = Index> {
    (0..covered).zip(chunk.block..).map(move |(distance, block)| match distance {
        _ if !chunk.packed => Index::Plain { block },
        0 => Index::Head { block },
        1 => Index::Rest { before: CLUSTER_BLOCKS | chunk.blocks, after: covered - 1 },
        _ => Index::Rest { before: distance, after: covered - distance },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_index_of_a_cluster_contains_its_length() {
        let chunk = Chunk { block: 9, blocks: 2, packed: true };
        let expected = [
            Index::Head { block: 9 },
            Index::Rest { before: CLUSTER_BLOCKS | 2, after: 2 },
            Index::Rest { before: 2, after: 1 },
        ];
        assert_eq!(indexes(chunk, 3).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_block_of_an_uncompressed_chunk_has_its_address() {
        let chunk = Chunk { block: 9, blocks: 2, packed: false };
        let expected = [Index::Plain { block: 9 }, Index::Plain { block: 10 }];
        assert_eq!(indexes(chunk, 2).collect::<Vec<_>>(), expected);
    }
}
