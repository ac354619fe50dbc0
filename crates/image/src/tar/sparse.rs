//! Sparse files in the four formats of GNU tar.
//!
//! Invariant: an accepted map ascends, stays within the file, and accounts for every byte that follows it.

use std::io::Read;

use super::header::{BLOCK, Header, natural};
use super::pax::{Records, decimal};
use super::{Entry, Reader, Source, TarError, read_error};
use crate::limits::MAX_SPARSE_SEGMENTS;
use crate::spool::Segment;

/// One offset and one length in GNU's header map.
const GNU_ENTRY: usize = 24;
/// The position of the continuation flag in a block that continues GNU's map: after its 21 entries.
const GNU_MORE: usize = 504;

/// Reads the map of a file, if it is sparse, and sets the entry's real name and size.
pub(super) fn apply<R: Source>(
    reader: &mut Reader<R>,
    header: &Header,
    records: &Records,
    entry: &mut Entry,
) -> Result<(), TarError> {
    let stored_map = match header.gnu_sparse() {
        Some((map, size, more)) => {
            entry.size = natural(size).ok_or(TarError::Number("size"))?;
            Some(old_gnu(reader, map, more)?)
        }
        None => pax(reader, records, entry)?,
    };
    if let Some(map) = stored_map {
        check(&map, entry.size, reader.left)?;
        entry.sparse = Some(map);
    }
    Ok(())
}

/// The map in the header and in blocks right after it, before the entry's bytes.
fn old_gnu<R: Source>(reader: &mut Reader<R>, map: &[u8], more: bool) -> Result<Vec<Segment>, TarError> {
    let mut segments = Vec::new();
    old_gnu_entries(map, &mut segments)?;
    let mut more = more;
    while more {
        let block = reader.block()?.ok_or(TarError::Truncated)?;
        old_gnu_entries(block.get(..GNU_MORE).unwrap_or_default(), &mut segments)?;
        more = block.get(GNU_MORE).is_some_and(|byte| *byte != 0);
    }
    Ok(segments)
}

fn old_gnu_entries(map: &[u8], segments: &mut Vec<Segment>) -> Result<(), TarError> {
    for pair in map.chunks_exact(GNU_ENTRY) {
        let (offset, length) = pair.split_at(GNU_ENTRY / 2);
        if offset.first().is_none_or(|byte| *byte == 0) {
            break;
        }
        let number = |field| natural(field).ok_or(TarError::Sparse);
        push(segments, number(offset)?, number(length)?)?;
    }
    Ok(())
}

/// The three PAX forms: the map in records (0.0 and 0.1) or before the bytes (1.0).
fn pax<R: Source>(
    reader: &mut Reader<R>,
    records: &Records,
    entry: &mut Entry,
) -> Result<Option<Vec<Segment>>, TarError> {
    let version = (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor"));
    let in_records = records.get(b"GNU.sparse.map");
    let in_data = match version {
        (Some(b"1"), Some(b"0")) => true,
        (Some(b"0"), Some(b"0" | b"1")) => false,
        (None, None) if in_records.is_some() => false,
        // As in Go: a file with an unknown version is an ordinary file.
        _ => return Ok(None),
    };
    if let Some(name) = records.get(b"GNU.sparse.name") {
        entry.name = name.to_vec();
    }
    let real = records.number(b"GNU.sparse.realsize", "size")?;
    let real = real.or(records.number(b"GNU.sparse.size", "size")?);
    entry.size = real.ok_or(TarError::Sparse)?;
    if in_data {
        map_in_data(reader).map(Some)
    } else {
        map_in_records(in_records.unwrap_or_default()).map(Some)
    }
}

fn map_in_records(text: &[u8]) -> Result<Vec<Segment>, TarError> {
    let mut segments = Vec::new();
    let mut numbers = text.split(|byte| *byte == b',').filter(|part| !part.is_empty());
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or(TarError::Sparse)?;
        let number = |digits| decimal(digits).ok_or(TarError::Sparse);
        push(&mut segments, number(offset)?, number(length)?)?;
    }
    Ok(segments)
}

/// Decimal lines: the number of segments, then offset and length of each; padded to a block.
fn map_in_data<R: Source>(reader: &mut Reader<R>) -> Result<Vec<Segment>, TarError> {
    let mut lines = Lines { reader, block: [0; BLOCK], at: BLOCK };
    let count = lines.number()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let (offset, length) = (lines.number()?, lines.number()?);
        push(&mut segments, offset, length)?;
    }
    Ok(segments)
}

/// Reads numbers on lines, in whole blocks of the entry's bytes.
struct Lines<'a, R> {
    reader: &'a mut Reader<R>,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Source> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return decimal(&digits).ok_or(TarError::Sparse),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(TarError::Sparse),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, TarError> {
        if self.at == BLOCK {
            self.reader.data().read_exact(&mut self.block).map_err(read_error)?;
            self.at = 0;
        }
        let byte = self.block.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        Ok(byte)
    }
}

fn push(segments: &mut Vec<Segment>, offset: u64, length: u64) -> Result<(), TarError> {
    if segments.len() == MAX_SPARSE_SEGMENTS {
        return Err(TarError::Sparse);
    }
    segments.push(Segment { offset, length });
    Ok(())
}

fn check(map: &[Segment], size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in map {
        let next = segment.offset.checked_add(segment.length).ok_or(TarError::Sparse)?;
        if segment.offset < end || next > size {
            return Err(TarError::Sparse);
        }
        (end, total) = (next, total.saturating_add(segment.length));
    }
    if total == stored { Ok(()) } else { Err(TarError::Sparse) }
}
