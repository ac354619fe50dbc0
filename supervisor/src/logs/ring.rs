//! One stream's last bytes: a part of a memfd that init keeps, written in a circle.
//!
//! Its law: a service's bytes get here by a single `splice` from its pipe, so the kernel moves the ring's file position in
//! the same call. The position is shared with init's copy of the descriptor: whatever a crash cuts off, it says how much
//! arrived. No byte is read into this program on its way in. The supervisor's own lines are written beside the position: of
//! these a crash may cut off the one that was just being written.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cloister_sys::splice::splice;
use cloister_wire::logs::{RING_BYTES, SHARE_RING_BYTES};

/// The most bytes moved at once: a quarter of a mebibyte is four full pipes of the default size, and keeps the time until
/// other tasks run under a millisecond.
pub(super) const BATCH_BYTES: usize = 240 * 1024;

/// The longest text written at once.
pub(super) const MAX_TEXT: u64 = 4097;

/// A stream's ring.
#[derive(Debug)]
pub(super) struct Ring {
    file: Arc<File>,
    /// Where it begins in the file.
    base: u64,
    size: u64,
    /// Bytes behind the newest that a crash may have overwritten without a note of it.
    torn: u64,
    end: u64,
}

/// Where bytes lie: counted from the stream's first byte ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
}

impl Ring {
    /// Goes on with the ring of a service's output at the start of `file`, of which `noted` bytes have been indexed. Returns
    /// the ring and the bytes that arrived and were not.
    pub(super) fn resume(file: Arc<File>, noted: u64) -> io::Result<(Self, Span)> {
        let position = (&*file).stream_position()?.checked_rem(RING_BYTES).unwrap_or_default();
        let noted_position = noted.checked_rem(RING_BYTES).unwrap_or_default();
        let ahead = if position >= noted_position {
            position.saturating_sub(noted_position)
        } else {
            position.saturating_add(RING_BYTES).saturating_sub(noted_position)
        };
        let end = noted.saturating_add(ahead);
        Ok((Self { file, base: 0, size: RING_BYTES, torn: 0, end }, Span { at: noted, len: ahead }))
    }

    /// Goes on with the ring of a share at `base`, of which `noted` bytes have been indexed.
    pub(super) const fn of_share(file: Arc<File>, base: u64, noted: u64) -> Self {
        Self { file, base, size: SHARE_RING_BYTES, torn: MAX_TEXT, end: noted }
    }

    /// Moves what lies in `pipe` here, at most [`BATCH_BYTES`]. An empty span is the end of the stream;
    /// `WouldBlock` an empty pipe.
    pub(super) fn take<P: AsFd>(&mut self, pipe: P) -> io::Result<Span> {
        let room = usize::try_from(self.rewind()?).unwrap_or(usize::MAX).min(BATCH_BYTES);
        let moved = splice(pipe, &*self.file, room, false)?;
        Ok(self.advance(moved))
    }

    /// Writes `text` into a share, [`MAX_TEXT`] bytes at most.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<Span> {
        let position = self.end.checked_rem(self.size).unwrap_or_default();
        let before_wrap = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let (first, second) = text.split_at(before_wrap.min(text.len()));
        self.file.write_all_at(first, self.base.saturating_add(position))?;
        self.file.write_all_at(second, self.base)?;
        Ok(self.advance(text.len()))
    }

    /// Whether all of `span` is still here.
    #[must_use]
    pub(super) const fn holds(&self, span: Span) -> bool {
        self.end.saturating_add(self.torn).saturating_sub(span.at) <= self.size
    }

    /// Appends the bytes of `span` to `out`. The caller has asked [`Self::holds`].
    pub(super) fn read(&self, span: Span, out: &mut Vec<u8>) -> io::Result<()> {
        let start = out.len();
        out.resize(start.saturating_add(usize::try_from(span.len).unwrap_or(usize::MAX)), 0);
        let position = span.at.checked_rem(self.size).unwrap_or_default();
        let buffer = out.get_mut(start..).unwrap_or_default();
        let before_wrap = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let (first, second) = buffer.split_at_mut(before_wrap.min(buffer.len()));
        self.file.read_exact_at(first, self.base.saturating_add(position))?;
        self.file.read_exact_at(second, self.base)
    }

    /// Goes back to the start at the ring's end, and says how much room is left before it.
    fn rewind(&mut self) -> io::Result<u64> {
        let position = self.end.checked_rem(RING_BYTES).unwrap_or_default();
        if position == 0 {
            (&*self.file).seek(SeekFrom::Start(0))?;
        }
        Ok(RING_BYTES.saturating_sub(position))
    }

    fn advance(&mut self, bytes: usize) -> Span {
        let span = Span { at: self.end, len: u64::try_from(bytes).unwrap_or(u64::MAX) };
        self.end = self.end.saturating_add(span.len);
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::{PipeFlags, pipe_with};

    fn ring() -> (Ring, Arc<File>) {
        let file = Arc::new(File::from(memfd_create("ring", MemfdFlags::CLOEXEC).unwrap()));
        (Ring::resume(Arc::clone(&file), 0).unwrap().0, file)
    }

    fn contents(ring: &Ring, span: Span) -> Vec<u8> {
        let mut out = Vec::new();
        ring.read(span, &mut out).unwrap();
        out
    }

    /// Writes to a pipe what a ring takes from it.
    fn pour(ring: &mut Ring, bytes: &[u8]) -> Span {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        File::from(write).write_all(bytes).unwrap();
        ring.take(&read).unwrap()
    }

    /// Fills a ring with bytes, in what a pipe holds.
    fn fill(ring: &mut Ring, mut left: u64) {
        while left > 0 {
            left -= pour(ring, &vec![b'x'; usize::try_from(left.min(60_000)).unwrap()]).len;
        }
    }

    #[test]
    fn what_a_pipe_held_is_in_the_ring() {
        let (mut ring, _twin) = ring();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        File::from(write).write_all(b"one\ntwo\n").unwrap();
        let span = ring.take(&read).unwrap();
        assert_eq!(contents(&ring, span), b"one\ntwo\n");
        assert_eq!(ring.take(&read).unwrap().len, 0, "the writer is gone: the end of the stream");
    }

    #[test]
    fn an_empty_pipe_would_block() {
        let (mut ring, _twin) = ring();
        let (read, _write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(ring.take(&read).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn after_a_crash_the_position_tells_what_was_not_noted() {
        let (mut ring, twin) = ring();
        let noted = pour(&mut ring, b"noted");
        pour(&mut ring, b"lost sight of");
        drop(ring);
        let (ring, gap) = Ring::resume(twin, noted.len).unwrap();
        assert_eq!(contents(&ring, gap), b"lost sight of");
        assert_eq!(ring.end, 18);
    }

    #[test]
    fn after_a_crash_at_the_rings_end_nothing_is_counted_twice() {
        let (mut ring, twin) = ring();
        fill(&mut ring, RING_BYTES);
        let (_, gap) = Ring::resume(twin, RING_BYTES).unwrap();
        assert_eq!(gap.len, 0);
    }

    #[test]
    fn a_full_ring_forgets_its_oldest_bytes() {
        let (mut ring, _twin) = ring();
        let first = pour(&mut ring, b"old");
        fill(&mut ring, RING_BYTES);
        assert!(!ring.holds(first));
        let last = Span { at: ring.end - 10, len: 10 };
        assert!(ring.holds(last));
        assert_eq!(contents(&ring, last), b"xxxxxxxxxx");
    }

    #[test]
    fn a_share_keeps_whole_texts_around_its_end_and_touches_no_other() {
        let (_, file) = ring();
        let base = 3 * SHARE_RING_BYTES;
        let mut share = Ring::of_share(Arc::clone(&file), base, SHARE_RING_BYTES - 4);
        let span = share.write(b"over the end").unwrap();
        assert_eq!(contents(&share, span), b"over the end");
        assert_eq!(file.metadata().unwrap().len(), base + SHARE_RING_BYTES);
        let mut start = [0; 8];
        file.read_exact_at(&mut start, base).unwrap();
        assert_eq!(&start, b" the end");
        file.read_exact_at(&mut start, base - 8).unwrap();
        assert_eq!(start, [0; 8]);
    }

    #[test]
    fn what_a_crash_may_have_overwritten_counts_as_gone() {
        let (_, file) = ring();
        let mut share = Ring::of_share(Arc::clone(&file), 0, 0);
        let first = share.write(b"first").unwrap();
        let newest = SHARE_RING_BYTES - MAX_TEXT;
        assert!(Ring::of_share(Arc::clone(&file), 0, newest).holds(first));
        assert!(!Ring::of_share(file, 0, newest + 1).holds(first), "the next text would reach it");
    }
}
