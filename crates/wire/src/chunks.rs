//! Chunks: how payload, its end and a break travel on an ingress connection ([`crate::ingress::Framing::Chunked`]).
//!
//! Its law: a length is checked before a byte behind it is believed, nothing may follow the empty chunk but a break, and
//! what came ahead of a break is payload like any other. It keeps no payload: that stays where the caller has it.

use std::io;
use std::ops::Range;

use crate::frame::HEADER;
use crate::ingress::{self, CHUNK_LIMIT};

/// The chunk that ends a direction.
pub const END: [u8; HEADER] = [0; HEADER];

/// What a sender whose connection broke off says in place of the next chunk.
pub const BREAK: [u8; HEADER] = ingress::BREAK.to_be_bytes();

/// The length to put in front of `count` bytes.
///
/// Errors: none for 1 to [`CHUNK_LIMIT`] bytes.
pub fn header(count: usize) -> io::Result<[u8; HEADER]> {
    let length = u32::try_from(count).ok().filter(|_| (1..=CHUNK_LIMIT).contains(&count));
    length.map(u32::to_be_bytes).ok_or_else(|| io::Error::other("no chunk has that length"))
}

/// Where a reader stands in a stream of chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Payload bytes of the current chunk that have not come yet.
    left: usize,
    /// The part of the next length that has come.
    partial: [u8; HEADER],
    /// How many bytes of it.
    have: usize,
    ended: bool,
    broken: bool,
}

impl Decoder {
    /// Payload bytes of the current chunk that have not come yet; 0 between chunks.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Bytes of the next length that have not come yet.
    #[must_use]
    pub const fn header_left(&self) -> usize {
        HEADER.saturating_sub(self.have)
    }

    /// Whether the empty chunk has come.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the peer has said that its connection broke off. Nothing behind that is read.
    #[must_use]
    pub const fn broken(&self) -> bool {
        self.broken
    }

    /// Notes that `count` payload bytes were taken elsewhere than through [`Self::strip`].
    pub const fn passed(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    /// Takes the lengths out of bytes that arrived: moves the payload together and returns where in `bytes` it lies.
    ///
    /// Errors: `InvalidData` for a chunk over the limit or bytes behind the end.
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

    /// Reads on in the next length, and returns how many of `bytes` belong to it.
    fn take_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.partial.get_mut(self.have..).unwrap_or_default();
        let count = room.len().min(bytes.len());
        for (to, from) in room.iter_mut().zip(bytes) {
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
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the last chunk"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > CHUNK_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is over the limit"));
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
    fn a_chunk_over_the_limit_is_refused_before_its_bytes_come() {
        let length = u32::try_from(CHUNK_LIMIT + 1).unwrap();
        assert!(Decoder::default().strip(&mut length.to_be_bytes()).is_err());
    }

    #[test]
    fn nothing_may_follow_the_end() {
        let mut decoder = Decoder::default();
        assert!(decoder.strip(&mut [0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        let mut decoder = Decoder::default();
        assert_eq!(decoder.strip(&mut [0, 0, 0, 0]).unwrap(), 0..0);
        assert!(decoder.ended());
        assert!(decoder.strip(&mut [0, 0, 0, 0]).is_err(), "not even another end");
    }

    #[test]
    fn what_comes_ahead_of_a_break_is_kept_and_what_comes_behind_it_is_not_read() {
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
    fn an_empty_chunk_is_not_made_by_accident() {
        assert!(header(0).is_err());
        assert!(header(CHUNK_LIMIT + 1).is_err());
        assert_eq!(header(5).unwrap(), [0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn payload_survives_any_cutting_of_the_stream(
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
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            if let Ok(payload) = decoder.strip(&mut bytes) {
                prop_assert!(payload.end <= bytes.len());
            }
        }
    }
}
