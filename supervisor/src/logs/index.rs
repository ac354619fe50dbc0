//! Which bytes were written when, in the order of the whole enclave: a memfd of fixed-size records, written in a circle.
//!
//! Its law: a record is written after its bytes are in the ring, whole or not at all (no record crosses a page), so the
//! index may lag behind the rings after a crash and never runs ahead.
//!
//! ```text
//! record:  u64 seq + 1 (0: never written) | u64 time, ns | u64 place in the stream | u32 length | u16 service | u8 stream | u8 0
//! ```
//!
//! Integers are little-endian. One page in front of the records holds the end of each stream, written now and then: a
//! stream so quiet that its last record was overwritten is found there.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use cloister_wire::logs::Stream;

use super::ring::Span;

/// Records kept. With lines of a hundred bytes the rings of six busy streams are full first.
pub(super) const CAPACITY: u64 = 64 * 1024;

/// The service number of what the supervisor says about itself.
pub(super) const NO_SERVICE: u16 = u16::MAX;

const RECORD: usize = 32;
const RECORD_BYTES: u64 = 32;

/// Bytes in front of the records.
const HEAD_BYTES: usize = 4096;
const HEAD: u64 = 4096;

/// Records read at once: a page of them.
const PAGE_RECORDS: u64 = 128;

/// Records between two notes of the streams' ends: a quarter of the index, so that a stream's last record is in the
/// index or its end was noted after it.
const NOTE_EVERY: u64 = CAPACITY / 4;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number in the enclave.
    pub(super) seq: u64,
    /// Nanoseconds since boot.
    pub(super) time_ns: u64,
    /// Where its bytes lie in its stream's ring.
    pub(super) span: Span,
    /// Whose it is: the service's place in the manifest, or [`NO_SERVICE`].
    pub(super) service: u16,
    /// Where it was written.
    pub(super) stream: Stream,
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    next: u64,
}

impl Index {
    /// Goes on with the index in `memfd`. `seen` is told each record that is there, in no order.
    pub(super) fn resume<F: FnMut(Entry)>(memfd: OwnedFd, mut seen: F) -> io::Result<Self> {
        let file = File::from(memfd);
        let mut next = 0;
        let mut page = vec![0; HEAD_BYTES];
        let mut at = HEAD;
        let length = file.metadata()?.len();
        while at < length {
            let read = file.read_at(&mut page, at)?;
            for entry in page.get(..read).unwrap_or_default().chunks_exact(RECORD).filter_map(decode) {
                next = next.max(entry.seq.saturating_add(1));
                seen(entry);
            }
            at = at.saturating_add(HEAD);
        }
        Ok(Self { file, next })
    }

    /// The number of the next record.
    #[must_use]
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The oldest number that may still be here.
    #[must_use]
    pub(super) const fn oldest(&self) -> u64 {
        self.next.saturating_sub(CAPACITY)
    }

    /// Appends records, numbered from [`Self::next`] on. Returns whether [`Self::note_ends`] is due.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<bool> {
        let before = self.next / NOTE_EVERY;
        for run in entries.chunk_by(|_, next| place(next.seq) != HEAD) {
            let Some(first) = run.first() else { continue };
            let bytes: Vec<u8> = run.iter().flat_map(encode).collect();
            self.file.write_all_at(&bytes, place(first.seq))?;
            self.next = self.next.saturating_add(u64::try_from(run.len()).unwrap_or(0));
        }
        Ok(self.next / NOTE_EVERY != before)
    }

    /// The records from number `from` on, which must be one of those still here: at least one if there is one, and at
    /// most as many as a page holds.
    pub(super) fn page(&self, from: u64) -> io::Result<Vec<Entry>> {
        let before_wrap = CAPACITY.saturating_sub(from.checked_rem(CAPACITY).unwrap_or_default());
        let count = self.next.saturating_sub(from).min(before_wrap).min(PAGE_RECORDS);
        let mut bytes = vec![0; usize::try_from(count.saturating_mul(RECORD_BYTES)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, place(from))?;
        Ok(bytes.chunks_exact(RECORD).filter_map(decode).collect())
    }

    /// Notes the ends of the streams, by their places.
    pub(super) fn note_ends(&self, ends: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).take(HEAD_BYTES).collect();
        self.file.write_all_at(&bytes, 0)
    }

    /// The ends noted last.
    pub(super) fn noted_ends(&self) -> io::Result<Vec<u64>> {
        let mut head = vec![0; HEAD_BYTES];
        let read = self.file.read_at(&mut head, 0)?;
        let (ends, _) = head.get(..read).unwrap_or_default().as_chunks::<8>();
        Ok(ends.iter().copied().map(u64::from_le_bytes).collect())
    }
}

fn place(seq: u64) -> u64 {
    HEAD.saturating_add(seq.checked_rem(CAPACITY).unwrap_or_default().saturating_mul(RECORD_BYTES))
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
        &[entry.stream.to_byte(), 0],
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
    let (service, rest) = rest.split_first_chunk::<2>()?;
    Some(Entry {
        seq: u64::from_le_bytes(*number).checked_sub(1)?,
        time_ns: u64::from_le_bytes(*time),
        span: Span { at: u64::from_le_bytes(*at), len: u32::from_le_bytes(*length).into() },
        service: u16::from_le_bytes(*service),
        stream: Stream::from_byte(*rest.first()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    fn entry(seq: u64) -> Entry {
        let span = Span { at: seq * 10, len: 10 };
        Entry { seq, time_ns: seq + 1, span, service: 3, stream: Stream::Stderr }
    }

    fn index() -> (Index, OwnedFd) {
        let fd = memfd_create("index", MemfdFlags::CLOEXEC).unwrap();
        let twin = fd.try_clone().unwrap();
        (Index::resume(fd, |_| {}).unwrap(), twin)
    }

    #[test]
    fn a_record_has_these_bytes() {
        let bytes = encode(&Entry {
            seq: 1,
            time_ns: 2,
            span: Span { at: 3, len: 4 },
            service: 5,
            stream: Stream::Stdout,
        });
        assert_eq!(bytes, *b"\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05\0\x01\0");
    }

    #[test]
    fn a_successor_finds_what_was_appended() {
        let (mut index, twin) = index();
        index.append(&[entry(0), entry(1)]).unwrap();
        let mut seen = Vec::new();
        let successor = Index::resume(twin, |e| seen.push(e)).unwrap();
        assert_eq!(seen, [entry(0), entry(1)]);
        assert_eq!(successor.next(), 2);
        assert_eq!(successor.page(1).unwrap(), [entry(1)]);
        assert_eq!(successor.page(2).unwrap(), []);
    }

    #[test]
    fn the_oldest_records_are_overwritten() {
        let (mut index, twin) = index();
        let all: Vec<Entry> = (0..CAPACITY + 3).map(entry).collect();
        for batch in all.chunks(1000) {
            index.append(batch).unwrap();
        }
        assert_eq!(index.oldest(), 3);
        assert_eq!(index.page(3).unwrap().first(), Some(&entry(3)));
        assert_eq!(
            index.page(CAPACITY - 1).unwrap(),
            [entry(CAPACITY - 1)],
            "a page ends where the circle does"
        );
        assert_eq!(
            index.page(CAPACITY).unwrap(),
            [entry(CAPACITY), entry(CAPACITY + 1), entry(CAPACITY + 2)]
        );
        assert_eq!(Index::resume(twin, |_| {}).unwrap().next(), CAPACITY + 3);
    }

    #[test]
    fn the_ends_of_streams_are_noted_in_time() {
        let (mut index, twin) = index();
        let all: Vec<Entry> = (0..NOTE_EVERY).map(entry).collect();
        assert!(!index.append(&all[..100]).unwrap());
        assert!(index.append(&all[100..]).unwrap());
        index.note_ends(&[5, 6]).unwrap();
        let ends = Index::resume(twin, |_| {}).unwrap().noted_ends().unwrap();
        assert_eq!(ends.get(..3), Some(&[5, 6, 0][..]));
    }
}
