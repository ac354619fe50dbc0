//! Allocates positions for inodes in the metadata.
//!
//! Invariant: the part of an item that must be in one block never crosses a block boundary. An item takes the smallest
//! gap that it fits into, or the end; the result depends on the order and the lengths alone.

use std::collections::BTreeSet;

use super::format::{BLOCK_BYTES, SLOT};

/// The allocated space, in bytes from the start of the metadata.
#[derive(Debug)]
pub(crate) struct Space {
    /// Gaps in blocks: length and position.
    gaps: BTreeSet<(u64, u64)>,
    end: u64,
}

impl Space {
    /// Empty except for the first slot: `readdir` would treat an entry with node number 0 as deleted.
    pub(crate) fn new() -> Self {
        Self { gaps: BTreeSet::new(), end: SLOT }
    }

    /// Allocates `length` bytes, of which the first `whole` are in one block. `whole` is at most a block.
    pub(crate) fn take(&mut self, length: u64, whole: u64) -> u64 {
        self.take_gap(length).unwrap_or_else(|| self.take_end(length, whole))
    }

    fn take_gap(&mut self, length: u64) -> Option<u64> {
        let (free, position) = self.gaps.range((length, 0)..).next().copied()?;
        self.gaps.remove(&(free, position));
        self.keep(position.saturating_add(length), position.saturating_add(free));
        Some(position)
    }

    fn take_end(&mut self, length: u64, whole: u64) -> u64 {
        let start = self.end.next_multiple_of(SLOT);
        let free = BLOCK_BYTES - start % BLOCK_BYTES;
        let position = if whole <= free { start } else { start + free };
        if position > start {
            self.keep(start, position);
        }
        self.end = position.saturating_add(length);
        position
    }

    /// Records the gap between two positions of a block.
    fn keep(&mut self, from: u64, to: u64) {
        let from = from.next_multiple_of(SLOT);
        if let Some(free) = to.checked_sub(from).filter(|free| *free >= SLOT) {
            self.gaps.insert((free, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indivisible_part_never_crosses_a_block_boundary() {
        let mut space = Space::new();
        for length in [4064, 100, 3000, 2000, 900, 64, 4096, 1] {
            let position = space.take(length, length);
            assert_eq!(position / BLOCK_BYTES, (position + length - 1) / BLOCK_BYTES);
            assert_eq!(position % SLOT, 0);
        }
    }

    #[test]
    fn a_gap_is_filled_by_the_first_item_that_fits() {
        let mut space = Space::new();
        assert_eq!(space.take(3000, 3000), 32);
        assert_eq!(space.take(2000, 2000), 4096);
        assert_eq!(space.take(500, 500), 3040);
        assert_eq!(space.take(500, 500), 3552);
        assert_eq!(space.end, 6096);
    }

    #[test]
    fn a_long_item_may_cross_blocks_after_its_indivisible_part() {
        let mut space = Space::new();
        assert_eq!(space.take(4000, 64), 32);
        assert_eq!(space.take(9000, 64), 4032);
        assert_eq!(space.take(64, 64), 13_056);
    }
}
