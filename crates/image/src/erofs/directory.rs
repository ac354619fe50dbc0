//! The content of a directory: blocks of sorted entries, in each block first the entries and then their names.
//!
//! Invariant: the length depends on the names alone, so that space can be allocated before node numbers are known. "."
//! and ".." are sorted among the names, since the kernel uses binary search.

use super::Error;
use super::format::{BLOCK, DIRENT, FileType};

/// The entries of a directory, in blocks.
#[derive(Debug)]
pub(crate) struct Listing<'a, T> {
    blocks: Vec<Vec<(&'a [u8], T)>>,
}

impl<'a, T> Listing<'a, T> {
    /// Sorts the entries and distributes them over blocks.
    pub(crate) fn new(mut entries: Vec<(&'a [u8], T)>) -> Self {
        entries.sort_by_key(|(name, _)| *name);
        let mut blocks = Vec::new();
        let mut block = Vec::new();
        let mut used = 0;
        for (name, target) in entries {
            let needed = DIRENT + name.len();
            if used + needed > BLOCK {
                blocks.push(std::mem::take(&mut block));
                used = 0;
            }
            used += needed;
            block.push((name, target));
        }
        blocks.push(block);
        Self { blocks }
    }

    /// Bytes of all blocks but the last, and bytes in the last.
    pub(crate) fn lengths(&self) -> (u64, u64) {
        let last: usize = self.blocks.last().into_iter().flatten().map(|(name, _)| DIRENT + name.len()).sum();
        let full = self.blocks.len().saturating_sub(1).saturating_mul(BLOCK);
        (u64::try_from(full).unwrap_or(u64::MAX), u64::try_from(last).unwrap_or(u64::MAX))
    }

    /// The bytes of each block; `target` returns the node number and type of an entry. The last block is not padded.
    pub(crate) fn encode(
        &self,
        target: impl Fn(&T) -> Option<(u64, FileType)>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut blocks =
            self.blocks.iter().map(|block| encode_block(block, &target)).collect::<Result<Vec<_>, _>>()?;
        let full = blocks.len().saturating_sub(1);
        for block in blocks.iter_mut().take(full) {
            block.resize(BLOCK, 0);
        }
        Ok(blocks)
    }
}

fn encode_block<T>(
    entries: &[(&[u8], T)],
    target: impl Fn(&T) -> Option<(u64, FileType)>,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut offset = entries.len() * DIRENT;
    for (name, entry) in entries {
        let (number, file_type) = target(entry).ok_or(Error::TooLarge)?;
        bytes.extend(number.to_le_bytes());
        // A block has 4096 bytes, so an offset in it always fits.
        bytes.extend(u16::try_from(offset).unwrap_or_default().to_le_bytes());
        bytes.extend([file_type.entry_code(), 0]);
        offset += name.len();
    }
    for (name, _) in entries {
        bytes.extend(*name);
    }
    Ok(bytes)
}
