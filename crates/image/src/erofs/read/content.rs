//! Reads contents: plain, after the inode, in clusters, or among the small files.
//!
//! Invariant: no buffer is longer than a chunk, and each chunk is checked to have the length that its position implies.

use super::bytes::Fields;
use super::inode::{self, Inode};
use super::{Error, Image};
use crate::erofs::codec::{CHUNK, CHUNK_BLOCKS, CHUNK_BYTES};
use crate::erofs::format::{BLOCK, BLOCK_BYTES, CLUSTER_BLOCKS, INDEX, INDEX_HEADER, Layout};
use crate::erofs::format::{WHOLE_FRAGMENT, advise};

/// Maximum length of a symbolic link (`PATH_MAX` without its zero).
const SHORT_MAX: u64 = 4095;

/// The target of a symbolic link.
pub(crate) fn short(image: &Image, inode: &Inode) -> Result<Vec<u8>, Error> {
    if inode.size > SHORT_MAX {
        return Err(Error::Damaged("a symbolic link is too long"));
    }
    let mut bytes = Vec::new();
    stream(image, inode, &mut |part| {
        bytes.extend(part);
        Ok(())
    })?;
    Ok(bytes)
}

/// Passes the content to `take`, in multiples of a block except for the end.
pub(crate) fn stream(
    image: &Image,
    inode: &Inode,
    take: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    if inode.layout == Layout::Inline {
        let rest = inode.size % BLOCK_BYTES;
        let whole = Inode { layout: Layout::Plain, size: inode.size - rest, ..*inode };
        stream(image, &whole, take)?;
        return take(&read(image, inode.end, rest)?);
    }
    if let Some(start) = place_among_packed(image, inode)? {
        return stream_packed(image, start, inode.size, take);
    }
    let chunks = Chunks::new(image, inode)?;
    (0..inode.size.div_ceil(CHUNK_BYTES)).try_for_each(|number| take(&chunks.read(number)?))
}

/// The position of a file in the packed inode, if it is there.
fn place_among_packed(image: &Image, inode: &Inode) -> Result<Option<u64>, Error> {
    if inode.layout != Layout::Compressed {
        return Ok(None);
    }
    let header = Fields::new(&read(image, inode.end.next_multiple_of(8), 8)?).u64()?;
    Ok((header & WHOLE_FRAGMENT != 0).then_some(header & !WHOLE_FRAGMENT))
}

/// Passes a part of the packed inode to `take`.
fn stream_packed(
    image: &Image,
    start: u64,
    size: u64,
    take: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let packed = inode::read(image, image.packed)?;
    let end = start.checked_add(size).filter(|end| *end <= packed.size);
    let end = end.ok_or(Error::Damaged("a small file is outside the packed inode"))?;
    if place_among_packed(image, &packed)?.is_some() || packed.layout == Layout::Inline {
        return Err(Error::Foreign("another form of the packed inode"));
    }
    let chunks = Chunks::new(image, &packed)?;
    let mut position = start;
    while position < end {
        let bytes = chunks.read(position / CHUNK_BYTES)?;
        let from = usize::try_from(position % CHUNK_BYTES).unwrap_or(CHUNK);
        let part = bytes.get(from..).unwrap_or_default();
        let wanted = usize::try_from(end - position).unwrap_or(CHUNK).min(part.len());
        take(part.get(..wanted).unwrap_or_default())?;
        position += u64::try_from(wanted.max(1)).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// The chunks of a plain or compressed file.
#[derive(Debug)]
struct Chunks<'a> {
    image: &'a Image,
    size: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// From this byte on.
    Plain(u64),
    /// The position of the first index, and the compression algorithm.
    Indexes(u64, u8),
}

impl<'a> Chunks<'a> {
    fn new(image: &'a Image, inode: &Inode) -> Result<Self, Error> {
        let place = if inode.layout == Layout::Compressed {
            let header = inode.end.next_multiple_of(8);
            let bytes = read(image, header, 8)?;
            let mut fields = Fields::new(&bytes);
            let (fragment, advise, algorithm, bits) =
                (fields.u32()?, fields.u16()?, fields.u8()?, fields.u8()?);
            if (fragment, advise, bits) != (0, advise::BIG_CLUSTERS, 0) {
                return Err(Error::Foreign("another form of compressed files"));
            }
            Place::Indexes(header + INDEX_HEADER, algorithm)
        } else {
            Place::Plain(u64::from(inode.data) * BLOCK_BYTES)
        };
        Ok(Self { image, size: inode.size, place })
    }

    /// The bytes of the chunk with this number, which must be inside the file.
    fn read(&self, number: u64) -> Result<Vec<u8>, Error> {
        let start = number.saturating_mul(CHUNK_BYTES);
        let size = self.size.saturating_sub(start).min(CHUNK_BYTES);
        match self.place {
            Place::Plain(position) => read(self.image, position.saturating_add(start), size),
            Place::Indexes(first, algorithm) => {
                let index = first.saturating_add(start / BLOCK_BYTES * INDEX);
                let indexes = read(self.image, index, size.div_ceil(BLOCK_BYTES) * INDEX)?;
                chunk(self.image, &indexes, usize::try_from(size).unwrap_or(CHUNK), algorithm)
            }
        }
    }
}

/// The bytes of one chunk from the indexes of its blocks.
fn chunk(image: &Image, indexes: &[u8], size: usize, algorithm: u8) -> Result<Vec<u8>, Error> {
    let mut fields = Fields::new(indexes);
    let (kind, _, block) = (fields.u16()?, fields.u16()?, fields.u32()?);
    match kind {
        0 => plain_chunk(image, indexes, size),
        1 => {
            fields.skip(4)?;
            let length = fields.u16()? ^ CLUSTER_BLOCKS;
            if length > CHUNK_BLOCKS {
                return Err(Error::Damaged("a cluster is too long"));
            }
            let packed = read(image, u64::from(block) * BLOCK_BYTES, u64::from(length) * BLOCK_BYTES)?;
            unpack(&packed, size, algorithm)
        }
        _ => Err(Error::Damaged("a chunk does not begin with a head")),
    }
}

fn plain_chunk(image: &Image, indexes: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(size.next_multiple_of(BLOCK));
    let mut fields = Fields::new(indexes);
    while !fields.is_empty() {
        let (kind, _, block) = (fields.u16()?, fields.u16()?, fields.u32()?);
        if kind != 0 {
            return Err(Error::Damaged("a chunk is partly compressed"));
        }
        bytes.extend(read(image, u64::from(block) * BLOCK_BYTES, BLOCK_BYTES)?);
    }
    bytes.truncate(size);
    Ok(bytes)
}

/// Decompresses a cluster, which is at the end of its blocks, to exactly `size` bytes.
fn unpack(cluster: &[u8], size: usize, algorithm: u8) -> Result<Vec<u8>, Error> {
    let padding = cluster.iter().take(BLOCK).take_while(|byte| **byte == 0).count();
    let packed = cluster.get(padding..).unwrap_or_default();
    let bytes = match algorithm {
        0 => i32::try_from(size).ok().and_then(|size| lz4::block::decompress(packed, Some(size)).ok()),
        3 => zstd::bulk::decompress(packed, size).ok(),
        _ => return Err(Error::Foreign("another compression")),
    };
    bytes.filter(|bytes| bytes.len() == size).ok_or(Error::Damaged("a chunk cannot be decompressed"))
}

/// At most a chunk of bytes.
fn read(image: &Image, position: u64, length: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(CHUNK).min(CHUNK)];
    image.read(&mut bytes, position)?;
    Ok(bytes)
}
