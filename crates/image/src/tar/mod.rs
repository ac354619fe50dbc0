//! A strict reader of tar streams: ustar, GNU and PAX, long names, sparse files, extended attributes.
//!
//! Invariant: a stream is interpreted as by Go's `archive/tar`, which every container engine uses for layers, or is
//! refused; and no stream makes the reader hold more than [`MAX_TAR_EXTENSION`] bytes at once.
//!
//! Our own code, since the `tar` crate reads extension records of any length into memory and splits PAX records at
//! newlines, which binary attributes contain; the tests use it as the independent writer. Interpreting names is left to
//! [`crate::layers`].

mod header;
mod pax;
mod sparse;

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::limits::{self, LimitError, MAX_TAR_EXTENSION};
use crate::spool::Segment;
use header::{BLOCK, Header};
use pax::Records;

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type flag.
    Unknown(u8),
}

/// One entry, with its extensions applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name as stored.
    pub name: Vec<u8>,
    /// The target of a link as stored.
    pub link: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in whole seconds since 1970, rounded down.
    pub mtime: i64,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The length of the file in bytes, holes included.
    pub size: u64,
    /// The parts of a sparse file that have bytes in the stream; `None` if the file is not sparse.
    pub sparse: Option<Vec<Segment>>,
}

/// Why a tar stream is refused or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream could not be read. Only the underlying reader knows who must act.
    #[error("the stream cannot be read")]
    Read(#[source] io::Error),
    /// The stream ends within an entry.
    #[error("it ends in the middle of an entry")]
    Truncated,
    /// A header whose checksum does not match: the stream is not a tar, or is damaged.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A field that is not a number, or out of range.
    #[error("the {0} of an entry is not a valid number")]
    Number(&'static str),
    /// An extension record that cannot be read.
    #[error("a PAX record is malformed")]
    Pax,
    /// A sparse map that contradicts itself.
    #[error("the map of a sparse file contradicts itself")]
    Sparse,
    /// An extension record that is too large to be read.
    #[error("an extension record is too large")]
    Extension(#[source] LimitError),
}

/// A stream that can skip bytes.
pub trait Source: Read + Sized {
    /// Skips `count` bytes; fails if there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Source for &[u8] {}

/// Reads the entries of a stream one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    /// Unread bytes of the current entry.
    left: u64,
    /// Padding after them, up to the next block.
    padding: u64,
    /// Bytes of the stream read so far.
    position: u64,
}

/// Extensions, which precede the entry they belong to.
#[derive(Default)]
struct Pending {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Source> Reader<R> {
    /// Starts at the beginning of a stream.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, position: 0 }
    }

    /// How many bytes of the stream have been read: the position of an error.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; unread bytes of the last one are skipped. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            match header.flag() {
                b'x' | b'X' => pending.records = pax::parse(&self.extension(&header)?)?,
                b'L' => pending.long_name = Some(text(self.extension(&header)?)),
                b'K' => pending.long_link = Some(text(self.extension(&header)?)),
                // Global records are ignored by the engines; `git archive` writes one with a comment.
                b'g' => drop(self.extension(&header)?),
                _ => return self.entry(&header, pending).map(Some),
            }
        }
    }

    /// A reader of the current entry's bytes.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { reader: self }
    }

    /// The underlying stream, positioned after the archive's end marker.
    pub fn into_source(self) -> R {
        self.source
    }

    fn entry(&mut self, header: &Header, pending: Pending) -> Result<Entry, TarError> {
        let mut entry = header.entry()?;
        pending.records.apply(&mut entry)?;
        if let Some(name) = pending.long_name {
            entry.name = name;
        }
        if let Some(link) = pending.long_link {
            entry.link = link;
        }
        if entry.kind == Kind::File && header.is_v7_directory(&entry.name) {
            entry.kind = Kind::Directory;
        }
        match entry.kind {
            Kind::File | Kind::Unknown(_) => self.expect(entry.size),
            // Go reads no bytes after these, whatever size they claim.
            _ => entry.size = 0,
        }
        if entry.kind == Kind::File {
            sparse::apply(self, header, &pending.records, &mut entry)?;
        }
        Ok(entry)
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % crate::wide(BLOCK);
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let count = self.left.checked_add(self.padding).ok_or(TarError::Number("size"))?;
        self.source.skip(count).map_err(read_error)?;
        self.position = self.position.saturating_add(count);
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; `None` at the end marker, and if the stream just ends between two entries, which some writers
    /// produce and Go accepts.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Header::new(&block).map(Some);
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK] => Ok(None),
            Some(_) => Err(TarError::Checksum),
        }
    }

    /// A whole block, or `None` if the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.position = self.position.saturating_add(crate::wide(BLOCK));
        Ok(Some(block))
    }

    /// The bytes of an extension entry.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        limits::check("bytes", size, MAX_TAR_EXTENSION).map_err(TarError::Extension)?;
        self.expect(size);
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| TarError::Number("size"))?];
        self.data().read_exact(&mut bytes).map_err(read_error)?;
        Ok(bytes)
    }
}

/// The bytes of one entry.
#[derive(Debug)]
pub struct Data<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.reader.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            // A decompressor treats an empty buffer as an error.
            return Ok(0);
        }
        let count = self.reader.source.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.reader.left = self.reader.left.saturating_sub(crate::wide(count));
        self.reader.position = self.reader.position.saturating_add(crate::wide(count));
        Ok(count)
    }
}

/// A premature end is an error of the archive; any other error is one of reading.
pub(crate) fn read_error(error: io::Error) -> TarError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => TarError::Truncated,
        _ => TarError::Read(error),
    }
}

/// The text of a field: up to its first zero.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

#[cfg(test)]
mod tests;
