//! Chunks: the encoding of payload, end and break on an ingress connection ([`crate::ingress::Framing::Chunked`]).
//!
//! Invariants: a length is checked before the bytes after it are used, only a break may follow the empty chunk, and
//! payload received before a break is valid. This module does not store payload; it stays in the caller's buffer.

use std::io;
use std::ops::Range;

use crate::frame::HEADER;
use crate::ingress::{self, CHUNK_LIMIT};

/// The chunk that ends a direction.
pub const END: [u8; HEADER] = [0; HEADER];

/// Sent in place of the next chunk by a sender whose own connection broke.
pub const BREAK: [u8; HEADER] = ingress::BREAK.to_be_bytes();

/// The length prefix of a chunk of `count` bytes.
///
/// Errors: if `count` is not between 1 and [`CHUNK_LIMIT`].
pub fn header(count: usize) -> io::Result<[u8; HEADER]> {
    let length = u32::try_from(count).ok().filter(|_| (1..=CHUNK_LIMIT).contains(&count));
    length.map(u32::to_be_bytes).ok_or_else(|| {
        io::Error::other(format!("invalid chunk length {count}: it must be between 1 and {CHUNK_LIMIT}"))
    })
}

/// The position of a reader in a stream of chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Payload bytes of the current chunk not received yet.
    left: usize,
    /// The part of the next length received so far.
    partial: [u8; HEADER],
    /// Number of valid bytes in `partial`.
    have: usize,
    ended: bool,
    broken: bool,
}

impl Decoder {
    /// Payload bytes of the current chunk not received yet; 0 between chunks.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Bytes of the next length not received yet.
    #[must_use]
    pub const fn header_left(&self) -> usize {
        HEADER.saturating_sub(self.have)
    }

    /// Whether the empty chunk was received.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the peer reported that its connection broke. Nothing after that is read.
    #[must_use]
    pub const fn broken(&self) -> bool {
        self.broken
    }

    /// Records that `count` payload bytes were consumed without [`Self::strip`].
    pub const fn passed(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    /// Removes the lengths from received bytes: compacts the payload in place and returns its range in `bytes`.
    ///
    /// Errors: `InvalidData` for a chunk over the limit or data after the end.
    pub fn strip(&mut self, bytes: &mut [u8]) -> io::Result<Range<usize>> {
        let mut payload = 0..0;
        let mut at = 0usize;
        while at < bytes.len() && !self.broken {
            if self.left == 0 {
                at = at.saturating_add(self.take_header(bytes.get(at..).unwrap_or_default())?);
                continue;
            }
            let count = self.left.min(bytes.len().saturating_sub(at));
            if payload.is_empty() {
                payload = at..at;
            } else {
                bytes.copy_within(at..at.saturating_add(count), payload.end);
            }
            payload.end = payload.end.saturating_add(count);
            at = at.saturating_add(count);
            self.passed(count);
        }
        Ok(payload)
    }

    /// Continues reading the next length, and returns how many of `bytes` belong to it.
    fn take_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let missing = self.partial.get_mut(self.have..).unwrap_or_default();
        let count = missing.len().min(bytes.len());
        for (to, from) in missing.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.have = self.have.saturating_add(count);
        if self.have == HEADER {
            self.have = 0;
            self.begin(u32::from_be_bytes(self.partial))?;
        }
        Ok(count)
    }

    fn begin(&mut self, length: u32) -> io::Result<()> {
        if length == ingress::BREAK {
            self.broken = true;
            return Ok(());
        }
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data after the final chunk"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > CHUNK_LIMIT {
            let text = format!("chunk of {length} bytes exceeds the limit of {CHUNK_LIMIT}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left = length;
        self.ended = length == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_over_the_limit_is_refused_before_its_payload_arrives() {
        let length = u32::try_from(CHUNK_LIMIT + 1).unwrap();
        assert!(Decoder::default().strip(&mut length.to_be_bytes()).is_err());
    }

    #[test]
    fn data_after_the_end_is_refused() {
        let mut decoder = Decoder::default();
        assert!(decoder.strip(&mut [0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        let mut decoder = Decoder::default();
        assert_eq!(decoder.strip(&mut [0, 0, 0, 0]).unwrap(), 0..0);
        assert!(decoder.ended());
        assert!(decoder.strip(&mut [0, 0, 0, 0]).is_err(), "a second end");
    }

    #[test]
    fn payload_before_a_break_is_kept_and_bytes_after_it_are_ignored() {
        let mut decoder = Decoder::default();
        let mut stream = *b"\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\x05";
        let payload = decoder.strip(&mut stream).unwrap();
        assert_eq!(&stream[payload], b"hi");
        assert!(decoder.broken() && !decoder.ended());
    }

    #[test]
    fn a_break_may_follow_the_end() {
        let mut decoder = Decoder::default();
        decoder.strip(&mut [0, 0, 0, 0, 0xff]).unwrap();
        assert!(decoder.ended() && !decoder.broken());
        decoder.strip(&mut [0xff; 3]).unwrap();
        assert!(decoder.broken());
    }

    #[test]
    fn a_length_that_no_chunk_can_have_is_refused() {
        assert!(header(0).is_err());
        assert!(header(CHUNK_LIMIT + 1).is_err());
        assert_eq!(header(5).unwrap(), [0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn payload_survives_any_split_of_the_stream(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in 1usize..60,
        ) {
            let mut stream: Vec<u8> = Vec::new();
            for piece in &pieces {
                stream.extend(header(piece.len()).unwrap());
                stream.extend(piece);
            }
            stream.extend(END);
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in stream.chunks_mut(cut) {
                let payload = decoder.strip(part).unwrap();
                seen.extend_from_slice(&part[payload]);
            }
            prop_assert!(decoder.ended());
            prop_assert_eq!(seen, pieces.concat());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            if let Ok(payload) = decoder.strip(&mut bytes) {
                prop_assert!(payload.end <= bytes.len());
            }
        }
    }
}
