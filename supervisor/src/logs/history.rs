//! One stream's history: its last bytes and their index, in a memfd that init holds.
//!
//! Invariant: it is bounded in bytes and in records, independently of other streams.
//!
//! ```text
//! memfd of an output:      ring, RING_BYTES | index, INDEX_BYTES
//! memfd of our own lines:  share | share | …   each  ring, SHARE_RING_BYTES | index, SHARE_INDEX_BYTES
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cloister_wire::logs::{
    INDEX_BYTES, MAX_OUTPUT, RING_BYTES, SHARE_BYTES, SHARE_INDEX_BYTES, SHARE_RING_BYTES,
};

use super::index::{Entry, Index};
use super::ring::{Ring, Span};
use crate::clock::Moment;

/// [`MAX_OUTPUT`] as a length in a ring.
#[expect(clippy::as_conversions, reason = "usize has at most 64 bits, and try_from is not const")]
pub(super) const MAX_OUTPUT_BYTES: u64 = MAX_OUTPUT as u64;

/// A stream's history.
#[derive(Debug)]
pub(super) struct History {
    ring: Ring,
    index: Index,
}

impl History {
    /// Continues the history in `memfd`, which is empty at first. Also returns the bytes that arrived before a crash
    /// and were not indexed, for [`Self::note`].
    pub(super) fn resume(memfd: OwnedFd) -> io::Result<(Self, Span)> {
        let file = Arc::new(File::from(memfd));
        let index = Index::resume(Arc::clone(&file), RING_BYTES, INDEX_BYTES)?;
        let (ring, missed) = Ring::resume(file, noted(&index))?;
        Ok((Self { ring, index }, missed))
    }

    /// Continues share `number` of `file`.
    pub(super) fn resume_share(file: Arc<File>, number: u64) -> io::Result<Self> {
        let base = number.saturating_mul(SHARE_BYTES);
        let index_base = base.saturating_add(SHARE_RING_BYTES);
        let index = Index::resume(Arc::clone(&file), index_base, SHARE_INDEX_BYTES)?;
        let ring = Ring::of_share(file, base, noted(&index));
        Ok(Self { ring, index })
    }

    /// The number after the newest record's; 0 if there is none.
    #[must_use]
    pub(super) fn next(&self) -> u64 {
        self.index.last().map_or(0, |last| last.seq.saturating_add(1))
    }

    /// Moves the contents of `pipe` here; see [`Ring::take`].
    pub(super) fn take<P: AsFd>(&mut self, pipe: P) -> io::Result<Span> {
        self.ring.take(pipe)
    }

    /// Writes `text` into a share; see [`Ring::write`].
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<Span> {
        self.ring.write(text)
    }

    /// Indexes bytes that are in the ring as records numbered from `seq` on, and returns the number after the last.
    pub(super) fn note(&mut self, span: Span, service: u16, seq: u64, now: Moment) -> io::Result<u64> {
        let mut entries = Vec::new();
        let (mut rest, mut seq) = (span, seq);
        while rest.len > 0 {
            let len = rest.len.min(MAX_OUTPUT_BYTES);
            let span = Span { at: rest.at, len };
            entries.push(Entry { seq, time_ns: now.nanos(), span, service });
            seq = seq.saturating_add(1);
            rest = Span { at: rest.at.saturating_add(len), len: rest.len.saturating_sub(len) };
        }
        self.index.append(&entries)?;
        Ok(seq)
    }

    /// Some of the records from number `seq` on; see [`Index::since`].
    pub(super) fn since(&self, seq: u64) -> io::Result<(Vec<Entry>, bool)> {
        self.index.since(seq)
    }

    /// Appends the bytes of `span` to `out` if all of them are still here, and returns whether they are.
    pub(super) fn read(&self, span: Span, out: &mut Vec<u8>) -> io::Result<bool> {
        let here = self.ring.holds(span);
        if here {
            self.ring.read(span, out)?;
        }
        Ok(here)
    }
}

/// Bytes of a stream that its index covers.
fn noted(index: &Index) -> u64 {
    index.last().map_or(0, |last| last.span.at.saturating_add(last.span.len))
}
