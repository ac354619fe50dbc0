//! The output of an image: blocks are written in order and numbered.
//!
//! Invariant: only [`Sink::finish`] seeks backwards, to the first block, which contains the superblock.

use std::io::{Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::Error;
use super::format::{BLOCK, BLOCK_BYTES};

/// Padding for blocks.
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The image while it is written.
#[derive(Debug)]
pub(crate) struct Sink<'o, W> {
    out: &'o mut W,
    /// Where the image begins in `out`.
    start: u64,
    /// Bytes written so far.
    length: u64,
    /// The digest of those bytes, the first block as zeros.
    hash: Sha256,
}

impl<'o, W: Write + Seek> Sink<'o, W> {
    /// Starts an image at the current position and reserves its first block.
    pub(crate) fn new(out: &'o mut W) -> Result<Self, Error> {
        let start = out.stream_position().map_err(Error::Write)?;
        let mut sink = Self { out, start, length: 0, hash: Sha256::new() };
        sink.write(&ZEROS)?;
        Ok(sink)
    }

    /// The number of the next block. The image must be at a block boundary.
    pub(crate) fn next_block(&self) -> Result<u32, Error> {
        u32::try_from(self.length / BLOCK_BYTES).map_err(|_| Error::TooLarge)
    }

    /// Bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Writes whole blocks, padded with zeros at the end; returns the number of the first one.
    pub(crate) fn blocks(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        let block = self.next_block()?;
        self.write(bytes)?;
        self.fill()?;
        Ok(block)
    }

    /// Writes whole blocks, padded with zeros at the beginning; returns the number of the first one.
    pub(crate) fn blocks_to_the_end(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        let block = self.next_block()?;
        let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
        self.write(ZEROS.get(..padding).unwrap_or_default())?;
        self.write(bytes)?;
        Ok(block)
    }

    /// Writes bytes at the current position.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.hash.update(bytes);
        self.length += u64::try_from(bytes.len()).map_err(|_| Error::TooLarge)?;
        Ok(())
    }

    /// Writes zeros until the image has `length` bytes.
    pub(crate) fn zeros_until(&mut self, length: u64) -> Result<(), Error> {
        while self.length < length {
            let missing = usize::try_from(length - self.length).unwrap_or(BLOCK).min(BLOCK);
            self.write(ZEROS.get(..missing).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Pads the last block.
    pub(crate) fn fill(&mut self) -> Result<(), Error> {
        self.zeros_until(self.length.next_multiple_of(BLOCK_BYTES))
    }

    /// The SHA-256 digest of everything after the first block, followed by `first`.
    pub(crate) fn digest(&self, first: &[u8]) -> [u8; 32] {
        self.hash.clone().chain_update(first).finalize().into()
    }

    /// Writes the first block and leaves the position after the image; returns the image's length.
    pub(crate) fn finish(self, first: &[u8]) -> Result<u64, Error> {
        let end = self.start.checked_add(self.length).ok_or(Error::TooLarge)?;
        self.out.seek(SeekFrom::Start(self.start)).map_err(Error::Write)?;
        self.out.write_all(first).map_err(Error::Write)?;
        self.out.seek(SeekFrom::Start(end)).map_err(Error::Write)?;
        Ok(self.length)
    }
}
