//! A stream's index: when its bytes were written, and their position in the order of the whole enclave, as fixed-size
//! records in a circular buffer after the bytes they describe.
//!
//! Invariant: a record is written after its bytes are in the ring, atomically (no record crosses a page), so after a
//! crash the index may lag behind its ring but is never ahead of it. Each stream has its own index, so that no stream
//! can overwrite another's records.
//!
//! ```text
//! record:  u64 seq + 1 (0: never written) | u64 time, ns | u64 place in the stream | u32 length | u16 service | u16 0
//! ```
//!
//! Integers are little-endian. Sequence numbers are shared by all streams and increase within a stream, with gaps for
//! the records of other streams.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::ring::Span;

/// The service number of the supervisor's lines about itself and the enclave.
pub(super) const NO_SERVICE: u16 = u16::MAX;

/// The service number of the supervisor's lines about connections from outside.
pub(super) const INGRESS: u16 = NO_SERVICE - 1;

const RECORD: usize = 32;
const RECORD_BYTES: u64 = 32;

/// Records that are looked up and read together, two kibibytes. The number of the first record of each block is in
/// memory, which takes one kibibyte per stream.
const BLOCK: u64 = 64;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number in the enclave.
    pub(super) seq: u64,
    /// Nanoseconds since boot.
    pub(super) time_ns: u64,
    /// The position of its bytes in its stream's ring.
    pub(super) span: Span,
    /// The service's position in the manifest, or [`NO_SERVICE`].
    pub(super) service: u16,
}

/// A stream's index.
#[derive(Debug)]
pub(super) struct Index {
    file: Arc<File>,
    /// Where the records begin: at the start of a page.
    base: u64,
    /// Maximum number of records.
    capacity: u64,
    /// Records ever written, as far as this supervisor knows: after a crash, counting continues from the records found.
    count: u64,
    last: Option<Entry>,
    /// The number of the first record of each block, by the block's position in the file.
    firsts: Vec<u64>,
}

impl Index {
    /// Continues the index in the `bytes` of `file` from `base` on.
    pub(super) fn resume(file: Arc<File>, base: u64, bytes: u64) -> io::Result<Self> {
        let capacity = bytes / RECORD_BYTES;
        let blocks = capacity / BLOCK;
        let mut index = Self { file, base, capacity, count: 0, last: None, firsts: vec![0; size(blocks)] };
        let mut newest: Option<(u64, Entry)> = None;
        let mut used = 0;
        for block in 0..blocks {
            let entries = index.read(block, BLOCK)?;
            if let (Some(first), Some(slot)) = (entries.first(), index.firsts.get_mut(size(block))) {
                *slot = first.seq;
            }
            for (place, entry) in (block.saturating_mul(BLOCK)..).zip(&entries) {
                used = used.max(place.saturating_add(1));
                if newest.is_none_or(|(_, newest)| entry.seq > newest.seq) {
                    newest = Some((place, *entry));
                }
            }
            if entries.is_empty() {
                break;
            }
        }
        if let Some((place, entry)) = newest {
            index.last = Some(entry);
            index.count = place.saturating_add(1);
            // Records after the newest one are those of the previous round.
            if used > index.count {
                index.count = index.count.saturating_add(capacity);
            }
        }
        Ok(index)
    }

    /// The newest record.
    #[must_use]
    pub(super) const fn last(&self) -> Option<Entry> {
        self.last
    }

    /// Appends records, whose numbers increase and are higher than all existing ones.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut rest = entries;
        while !rest.is_empty() {
            let taken = self.count.checked_rem(self.capacity).unwrap_or_default();
            let before_wrap = self.capacity.saturating_sub(taken);
            let (run, others) = rest.split_at(size(before_wrap).min(rest.len()));
            let bytes: Vec<u8> = run.iter().flat_map(encode).collect();
            self.file.write_all_at(&bytes, self.place(self.count))?;
            for entry in run {
                let block = self.block_place(self.count / BLOCK);
                if self.count.checked_rem(BLOCK) == Some(0)
                    && let Some(first) = self.firsts.get_mut(block)
                {
                    *first = entry.seq;
                }
                self.count = self.count.saturating_add(1);
                self.last = Some(*entry);
            }
            rest = others;
        }
        Ok(())
    }

    /// Some of the records numbered `seq` and above, oldest first: at least one if there is one, at most a block. The
    /// flag is true if more follow.
    pub(super) fn since(&self, seq: u64) -> io::Result<(Vec<Entry>, bool)> {
        if self.last.is_none_or(|last| last.seq < seq) {
            return Ok((Vec::new(), false));
        }
        // A block that is being overwritten counts as lost: its first number is the new one's.
        let oldest = self.count.saturating_sub(self.capacity).div_ceil(BLOCK);
        let newest = self.count.saturating_sub(1) / BLOCK;
        let (mut low, mut high) = (oldest, newest);
        while low < high {
            let middle = high.saturating_sub(high.saturating_sub(low) / 2);
            let first = self.firsts.get(self.block_place(middle)).copied().unwrap_or(u64::MAX);
            if first <= seq { low = middle } else { high = middle.saturating_sub(1) }
        }
        for block in low..=newest {
            let held = self.count.saturating_sub(block.saturating_mul(BLOCK)).min(BLOCK);
            let mut entries = self.read(block, held)?;
            entries.retain(|entry| entry.seq >= seq);
            if !entries.is_empty() {
                return Ok((entries, block < newest));
            }
        }
        Ok((Vec::new(), false))
    }

    /// The first `count` records of a block, or as many as were ever written.
    fn read(&self, block: u64, count: u64) -> io::Result<Vec<Entry>> {
        let mut bytes = vec![0; size(count.saturating_mul(RECORD_BYTES))];
        let at = self.place(block.saturating_mul(BLOCK));
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at.saturating_add(u64::try_from(filled).unwrap_or(0)))? {
                0 => break,
                more => filled = filled.saturating_add(more),
            }
        }
        Ok(bytes.get(..filled).unwrap_or_default().chunks_exact(RECORD).map_while(decode).collect())
    }

    /// The position in the file of the stream's record number `count`.
    fn place(&self, count: u64) -> u64 {
        let place = count.checked_rem(self.capacity).unwrap_or_default();
        self.base.saturating_add(place.saturating_mul(RECORD_BYTES))
    }

    fn block_place(&self, block: u64) -> usize {
        size(block.checked_rem(self.capacity / BLOCK).unwrap_or_default())
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn encode(entry: &Entry) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let length = u32::try_from(entry.span.len).unwrap_or(u32::MAX);
    let fields = [
        entry.seq.saturating_add(1).to_le_bytes().as_slice(),
        &entry.time_ns.to_le_bytes(),
        &entry.span.at.to_le_bytes(),
        &length.to_le_bytes(),
        &entry.service.to_le_bytes(),
        &[0, 0],
    ]
    .concat();
    out.copy_from_slice(&fields);
    out
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (service, _) = rest.split_first_chunk::<2>()?;
    Some(Entry {
        seq: u64::from_le_bytes(*number).checked_sub(1)?,
        time_ns: u64::from_le_bytes(*time),
        span: Span { at: u64::from_le_bytes(*at), len: u32::from_le_bytes(*length).into() },
        service: u16::from_le_bytes(*service),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::logs::{INDEX_BYTES, RING_BYTES};
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    const CAPACITY: u64 = INDEX_BYTES / RECORD_BYTES;

    fn entry(seq: u64) -> Entry {
        let span = Span { at: seq * 10, len: 10 };
        Entry { seq, time_ns: seq + 1, span, service: 3 }
    }

    fn file() -> Arc<File> {
        Arc::new(File::from(memfd_create("index", MemfdFlags::CLOEXEC).unwrap()))
    }

    fn resume(file: Arc<File>) -> Index {
        Index::resume(file, RING_BYTES, INDEX_BYTES).unwrap()
    }

    /// All records from `seq` on.
    fn all(index: &Index, seq: u64) -> Vec<u64> {
        let (mut seqs, mut next) = (Vec::new(), seq);
        loop {
            let (entries, more) = index.since(next).unwrap();
            seqs.extend(entries.iter().map(|entry| entry.seq));
            if !more {
                return seqs;
            }
            next = seqs.last().unwrap() + 1;
        }
    }

    #[test]
    fn a_record_has_the_documented_layout() {
        let bytes = encode(&Entry { seq: 1, time_ns: 2, span: Span { at: 3, len: 4 }, service: 5 });
        assert_eq!(bytes, *b"\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05\0\0\0");
    }

    #[test]
    fn a_successor_finds_the_appended_records() {
        let file = file();
        resume(Arc::clone(&file)).append(&[entry(4), entry(9)]).unwrap();
        let successor = resume(file);
        assert_eq!(successor.last(), Some(entry(9)));
        assert_eq!(successor.since(0).unwrap(), (vec![entry(4), entry(9)], false));
        assert_eq!(successor.since(5).unwrap(), (vec![entry(9)], false));
        assert_eq!(successor.since(10).unwrap(), (vec![], false));
    }

    #[test]
    fn the_oldest_records_are_overwritten() {
        let file = file();
        let mut index = resume(Arc::clone(&file));
        let entries: Vec<Entry> = (0..2 * CAPACITY + 3).map(entry).collect();
        for batch in entries.chunks(1000) {
            index.append(batch).unwrap();
        }
        // The block that the newest three records start is lost as a whole.
        let oldest = CAPACITY + BLOCK;
        assert_eq!(all(&index, 0), (oldest..2 * CAPACITY + 3).collect::<Vec<_>>());
        let mut successor = resume(file);
        assert_eq!(all(&successor, 0), all(&index, 0));
        successor.append(&[entry(2 * CAPACITY + 3)]).unwrap();
        assert_eq!(all(&successor, 2 * CAPACITY), (2 * CAPACITY..2 * CAPACITY + 4).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_index_that_has_not_wrapped_is_complete() {
        let file = file();
        let mut index = resume(Arc::clone(&file));
        let entries: Vec<Entry> = (0..CAPACITY).map(entry).collect();
        index.append(&entries).unwrap();
        assert_eq!(all(&index, 0).len(), size(CAPACITY));
        assert_eq!(all(&resume(file), 0).len(), size(CAPACITY));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_lookup_returns_all_records_from_a_number_on(
            steps in prop::collection::vec(1u64..5, 1..300), before in 0u64..3, wanted in 0u64..1200,
        ) {
            let mut index = resume(file());
            let filler: Vec<Entry> = (0..before * CAPACITY / 2).map(entry).collect();
            index.append(&filler).unwrap();
            let base = before * CAPACITY / 2;
            let numbers: Vec<u64> = steps.iter().scan(base, |at, step| { *at += step; Some(*at) }).collect();
            for seq in &numbers {
                index.append(&[entry(*seq)]).unwrap();
            }
            let wanted = base + wanted;
            let expected: Vec<u64> = numbers.iter().copied().filter(|seq| *seq >= wanted).collect();
            prop_assert_eq!(all(&index, wanted), expected);
        }
    }
}
