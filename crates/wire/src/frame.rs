//! Frames: a `u32` big-endian length, then that many bytes.
//!
//! Invariant: a length is checked against the channel's limit before any byte of the body is buffered, so a peer can
//! make the reader buffer at most that many bytes. [`Decoder`] accepts bytes as they arrive and needs no socket.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length of a frame on a channel to the host, in bytes without the length prefix: the host is untrusted, and
/// no valid message is longer.
pub const HOST_LIMIT: usize = 64 * 1024;

/// Maximum length of a frame between init and the supervisor, in bytes without the length prefix. A spawn request
/// contains an argument list and an environment, for which Linux allows 128 KiB per string (`MAX_ARG_STRLEN`,
/// `linux/binfmts.h`).
pub const HOLD_LIMIT: usize = 1024 * 1024;

/// Size of the length prefix of each frame in bytes.
pub const HEADER: usize = 4;

/// An invalid frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced, or the caller tried to send, more than the channel allows.
    #[error("frame of {length} bytes exceeds this channel's limit of {limit}")]
    TooLong {
        /// The length in bytes.
        length: usize,
        /// The channel's limit in bytes.
        limit: usize,
    },
    /// The body is not a JSON message of this channel.
    #[error("frame is not a valid message of this channel: {0}")]
    NotAMessage(#[from] serde_json::Error),
}

/// Encodes `message` as one JSON frame.
pub fn encode<M: Serialize>(message: &M, limit: usize) -> Result<Vec<u8>, FrameError> {
    encode_bytes(&serde_json::to_vec(message)?, limit)
}

/// Encodes `body` as one frame.
pub fn encode_bytes(body: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let too_long = FrameError::TooLong { length: body.len(), limit };
    if body.len() > limit {
        return Err(too_long);
    }
    let length = u32::try_from(body.len()).map_err(|_| too_long)?;
    let mut frame = Vec::with_capacity(HEADER.saturating_add(body.len()));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Parses the body of a frame as JSON.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Buffers bytes as they arrive and returns complete frames.
///
/// After an error the stream is out of sync, and the connection must be closed.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    buffer: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// A decoder that refuses frames longer than `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), taken: 0 }
    }

    /// Adds received bytes. Call [`Self::next_frame`] until it is `None` before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The body of the next complete frame, or `None` until more bytes arrive.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let pending = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = pending.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        self.taken = self.taken.saturating_add(HEADER).saturating_add(length);
        Ok(Some(body))
    }

    /// The next complete frame as a message, or `None` until more bytes arrive.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        self.next_frame()?.map(decode).transpose()
    }

    /// Received bytes that are not part of a returned frame: the data after the header on a stream that is raw from
    /// then on.
    #[must_use]
    pub fn remainder(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// The same as [`Self::remainder`], when no more frames are expected.
    #[must_use]
    pub fn into_remainder(mut self) -> Vec<u8> {
        self.buffer.drain(..self.taken);
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_a_big_endian_length_and_its_bytes() {
        assert_eq!(encode_bytes(b"hey", HOST_LIMIT).unwrap(), b"\0\0\0\x03hey");
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_body_arrives() {
        let mut decoder = Decoder::new(8);
        decoder.push(&9u32.to_be_bytes());
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { length: 9, limit: 8 })));
    }

    #[test]
    fn a_message_too_long_to_send_is_refused() {
        assert!(matches!(encode(&"long", 3), Err(FrameError::TooLong { length: 6, limit: 3 })));
    }

    #[test]
    fn bytes_after_the_last_frame_are_kept_unchanged() {
        let mut decoder = Decoder::new(HOST_LIMIT);
        decoder.push(b"\0\0\0\x02{}GET /");
        assert_eq!(decoder.next_frame().unwrap(), Some(&b"{}"[..]));
        assert_eq!(decoder.remainder(), b"GET /");
        assert_eq!(decoder.into_remainder(), b"GET /");
    }

    proptest! {
        #[test]
        fn frames_survive_any_split_of_the_stream(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            cut in 1usize..20,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|b| encode_bytes(b, 64).unwrap()).collect();
            let mut decoder = Decoder::new(64);
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(body) = decoder.next_frame().unwrap() {
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }
}
