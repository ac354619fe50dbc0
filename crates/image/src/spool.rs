//! File contents between input and image: in one unlinked file, so that memory use does not grow with their size.
//!
//! Invariant: appended data never changes, and is freed with the last reader, however the program ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::tree::Content;

/// Bytes copied at a time: large enough to make system calls cheap, small enough to stay in a cache.
const CHUNK: usize = 256 * 1024;

/// A growing anonymous file.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    end: u64,
    buffer: Vec<u8>,
}

/// A range of a file that is not a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Why a file's content could not be spooled. Which side failed determines who must act.
#[derive(Debug)]
pub enum SpoolError {
    /// The input ended early or could not be read.
    Read(io::Error),
    /// It could not be written to the scratch directory.
    Write(io::Error),
}

impl Spool {
    /// An empty spool in `directory`, which should be on a disk: the spool grows to the size of the unpacked image.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let file = Arc::new(tempfile::tempfile_in(directory)?);
        Ok(Self { file, end: 0, buffer: vec![0; CHUNK] })
    }

    /// Appends exactly `length` bytes.
    pub fn append(&mut self, source: &mut impl Read, length: u64) -> Result<Content, SpoolError> {
        self.append_sparse(source, length, &[Segment { offset: 0, length }])
    }

    /// Appends a content of `length` bytes; the source holds its segments one after the other. The caller has checked
    /// that they ascend and are within the length.
    pub fn append_sparse(
        &mut self,
        source: &mut impl Read,
        length: u64,
        segments: &[Segment],
    ) -> Result<Content, SpoolError> {
        for segment in segments {
            self.copy(source, self.end.saturating_add(segment.offset), segment.length)?;
        }
        // A map may end with an empty segment, which GNU tar adds where a hole ends the file: nothing is written there.
        let last = segments.iter().rev().find(|segment| segment.length > 0);
        let written = last.map_or(0, |last| last.offset.saturating_add(last.length));
        self.close(length, written)
    }

    /// Appends the first `length` bytes of a file; its holes stay holes.
    pub fn append_file(&mut self, file: &mut File, length: u64) -> Result<Content, SpoolError> {
        let mut at = 0;
        while let Some(segment) = next_segment(file, at, length).map_err(SpoolError::Read)? {
            file.seek(SeekFrom::Start(segment.offset)).map_err(SpoolError::Read)?;
            self.copy(file, self.end.saturating_add(segment.offset), segment.length)?;
            at = segment.offset.saturating_add(segment.length);
        }
        self.close(length, at)
    }

    /// Ends a content that was written up to `written`, and extends the file over a hole at its end.
    fn close(&mut self, length: u64, written: u64) -> Result<Content, SpoolError> {
        let offset = self.end;
        self.end = offset.saturating_add(length);
        if written < length {
            self.file.set_len(self.end).map_err(SpoolError::Write)?;
        }
        Ok(Content::Spooled { file: Arc::clone(&self.file), offset, length })
    }

    fn copy(&mut self, source: &mut impl Read, mut at: u64, length: u64) -> Result<(), SpoolError> {
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let Some(chunk) = self.buffer.get_mut(..want) else { break };
            source.read_exact(chunk).map_err(SpoolError::Read)?;
            self.file.write_all_at(chunk, at).map_err(SpoolError::Write)?;
            at = at.saturating_add(crate::wide(want));
            left -= crate::wide(want);
        }
        Ok(())
    }
}

/// The next part of a file's first `length` bytes that is not a hole, from `at` on.
fn next_segment(file: &File, at: u64, length: u64) -> io::Result<Option<Segment>> {
    let offset = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(offset) => offset,
        // Only a hole is left.
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not report holes.
        Err(Errno::INVAL) => at,
        Err(error) => return Err(error.into()),
    };
    if offset >= length {
        return Ok(None);
    }
    let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(offset)).unwrap_or(length).min(length);
    Ok(Some(Segment { offset, length: end.saturating_sub(offset) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holes_of_a_file_take_no_space_in_the_spool() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"end", 5 << 30).unwrap();
        let length = file.metadata().unwrap().len() + 7;
        file.set_len(length).unwrap();
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let content = spool.append_file(&mut file, length).unwrap();
        assert!(spool.file.metadata().unwrap().blocks() * 512 < 1 << 20);
        for (at, expected) in
            [(0, &b"begin\0"[..]), (1 << 30, b"\0\0"), ((5 << 30) - 1, b"\0end\0\0\0\0\0\0\0")]
        {
            let mut bytes = vec![1; expected.len()];
            content.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn contents_follow_each_other_and_holes_read_as_zeros() {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let first = spool.append(&mut &b"first"[..], 5).unwrap();
        let segments = [Segment { offset: 2, length: 1 }, Segment { offset: 4, length: 1 }];
        let second = spool.append_sparse(&mut &b"xy"[..], 7, &segments).unwrap();
        let third = spool.append(&mut &b"3"[..], 1).unwrap();
        for (content, expected) in [(first, &b"first"[..]), (second, b"\0\0x\0y\0\0"), (third, b"3")] {
            let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
            content.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_map_that_ends_with_an_empty_segment_keeps_its_full_length() {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let segments = [Segment { offset: 0, length: 1 }, Segment { offset: 9, length: 0 }];
        let content = spool.append_sparse(&mut &b"x"[..], 9, &segments).unwrap();
        let mut bytes = [7; 9];
        content.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"x\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_truncated_source_is_reported() {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let error = spool.append(&mut &b"abc"[..], 4);
        assert!(
            matches!(error, Err(SpoolError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
        );
    }
}
