//! A range of bytes in a file: a blob of a layout, or a member of an archive.
//!
//! Invariant: readers of the same file do not affect each other's position.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::tar::Source;
use crate::tree::Content;

/// Bytes in a file that stays open.
#[derive(Clone, Debug)]
pub struct Blob {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

/// Reads a blob from its beginning.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    at: u64,
}

impl Blob {
    /// A whole regular file, with its current length.
    pub fn whole(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Self { length: metadata.len(), file: Arc::new(file), offset: 0 })
    }

    /// A part of this blob; `None` if it is out of range.
    #[must_use]
    pub fn part(&self, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        let part = Self { file: Arc::clone(&self.file), offset: self.offset.checked_add(offset)?, length };
        (end <= self.length).then_some(part)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The same bytes as a file's content.
    #[must_use]
    pub fn content(&self) -> Content {
        Content::Spooled { file: Arc::clone(&self.file), offset: self.offset, length: self.length }
    }

    /// A reader that starts at the beginning.
    #[must_use]
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), at: 0 }
    }

    /// Reads the whole blob into memory: for documents, whose length the caller has checked.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.length.saturating_sub(self.at);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let place = self.blob.offset.saturating_add(self.at);
        let count = self.blob.file.read_at(buffer.get_mut(..most).unwrap_or_default(), place)?;
        self.at = self.at.saturating_add(crate::wide(count));
        Ok(count)
    }
}

impl Source for BlobReader {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let to = self.at.checked_add(count).filter(|to| *to <= self.blob.length);
        self.at = to.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}
