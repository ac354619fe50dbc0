//! One stream's last bytes: a circular buffer in a part of a memfd that init holds.
//!
//! Invariant: a service's bytes get here by a single `splice` from its pipe, so that the kernel moves the ring's file
//! position in the same call. The position is shared with init's copy of the descriptor: wherever a crash interrupts,
//! it shows how many bytes arrived. No byte is copied into this program. The supervisor's own lines are written without
//! the position: a crash may truncate the line that is being written.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cloister_sys::splice::splice;
use cloister_wire::logs::{RING_BYTES, SHARE_RING_BYTES};

/// Maximum number of bytes moved at once: a quarter of a mebibyte is four full pipes of the default size, and takes
/// less than a millisecond, so that other tasks run soon.
pub(super) const BATCH_BYTES: usize = 240 * 1024;

/// Maximum length of a text written at once.
pub(super) const MAX_TEXT: u64 = 4097;

/// A stream's ring.
#[derive(Debug)]
pub(super) struct Ring {
    file: Arc<File>,
    /// Its start in the file.
    base: u64,
    size: u64,
    /// Bytes after the newest one that a crash may have overwritten without a record.
    torn: u64,
    end: u64,
}

/// A range of bytes, counted from the stream's first byte ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
}

impl Ring {
    /// Continues the ring of a service's output at the start of `file`, of which `noted` bytes have been indexed.
    /// Returns the ring and the bytes that arrived and were not indexed.
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

    /// Continues the ring of a share at `base`, of which `noted` bytes have been indexed.
    pub(super) const fn of_share(file: Arc<File>, base: u64, noted: u64) -> Self {
        Self { file, base, size: SHARE_RING_BYTES, torn: MAX_TEXT, end: noted }
    }

    /// Moves the contents of `pipe` here, at most [`BATCH_BYTES`]. An empty span means the end of the stream;
    /// `WouldBlock` means an empty pipe.
    pub(super) fn take<P: AsFd>(&mut self, pipe: P) -> io::Result<Span> {
        let space = usize::try_from(self.rewind()?).unwrap_or(usize::MAX).min(BATCH_BYTES);
        let moved = splice(pipe, &*self.file, space, false)?;
        Ok(self.advance(moved))
    }

    /// Writes `text`, at most [`MAX_TEXT`] bytes, into a share.
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

    /// Appends the bytes of `span` to `out`. The caller has checked [`Self::holds`].
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

    /// Seeks to the start if the ring's end is reached, and returns the space left before the end.
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

    /// Passes bytes through a pipe into a ring.
    fn pour(ring: &mut Ring, bytes: &[u8]) -> Span {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        File::from(write).write_all(bytes).unwrap();
        ring.take(&read).unwrap()
    }

    /// Writes bytes into a ring, in pieces that fit into a pipe.
    fn fill(ring: &mut Ring, mut left: u64) {
        while left > 0 {
            left -= pour(ring, &vec![b'x'; usize::try_from(left.min(60_000)).unwrap()]).len;
        }
    }

    #[test]
    fn the_contents_of_a_pipe_are_in_the_ring() {
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
    fn after_a_crash_the_position_shows_which_bytes_were_not_indexed() {
        let (mut ring, twin) = ring();
        let noted = pour(&mut ring, b"noted");
        pour(&mut ring, b"lost sight of");
        drop(ring);
        let (ring, gap) = Ring::resume(twin, noted.len).unwrap();
        assert_eq!(contents(&ring, gap), b"lost sight of");
        assert_eq!(ring.end, 18);
    }

    #[test]
    fn after_a_crash_at_the_end_of_the_ring_no_byte_is_counted_twice() {
        let (mut ring, twin) = ring();
        fill(&mut ring, RING_BYTES);
        let (_, gap) = Ring::resume(twin, RING_BYTES).unwrap();
        assert_eq!(gap.len, 0);
    }

    #[test]
    fn a_full_ring_overwrites_its_oldest_bytes() {
        let (mut ring, _twin) = ring();
        let first = pour(&mut ring, b"old");
        fill(&mut ring, RING_BYTES);
        assert!(!ring.holds(first));
        let last = Span { at: ring.end - 10, len: 10 };
        assert!(ring.holds(last));
        assert_eq!(contents(&ring, last), b"xxxxxxxxxx");
    }

    #[test]
    fn a_text_wraps_around_the_end_of_its_share_and_leaves_other_shares_alone() {
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
    fn bytes_that_a_crash_may_have_overwritten_count_as_lost() {
        let (_, file) = ring();
        let mut share = Ring::of_share(Arc::clone(&file), 0, 0);
        let first = share.write(b"first").unwrap();
        let newest = SHARE_RING_BYTES - MAX_TEXT;
        assert!(Ring::of_share(Arc::clone(&file), 0, newest).holds(first));
        assert!(!Ring::of_share(file, 0, newest + 1).holds(first), "the next text would reach it");
    }
}
