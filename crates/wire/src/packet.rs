//! Packets between the supervisor and a servant: one JSON message each, over a `SOCK_SEQPACKET` pair.
//!
//! Invariant: a packet has at most [`LIMIT`] bytes, and each part of a message is within its own limit before anyone
//! uses it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::FrameError;

/// Maximum length of a packet in bytes: the largest message of all servants fits ([`crate::gateway::MAX_TARGETS`]
/// entries of a table), and Linux accepts three times as much in one packet (`net.core.wmem_default`, 208 KiB).
pub const LIMIT: usize = 64 * 1024;

/// A message whose parts have limits of their own.
pub trait Bounded {
    /// Length and limit of the first part that is too long.
    fn excess(&self) -> Option<(usize, usize)>;
}

/// Encodes a message as one packet.
///
/// # Errors
/// If it is longer than [`LIMIT`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > LIMIT {
        return Err(FrameError::TooLong { length: packet.len(), limit: LIMIT });
    }
    Ok(packet)
}

/// Decodes a packet.
///
/// # Errors
/// If it is longer than [`LIMIT`], is not a message of this channel, or a part of it exceeds its own limit.
pub fn decode<M: DeserializeOwned + Bounded>(packet: &[u8]) -> Result<M, FrameError> {
    if packet.len() > LIMIT {
        return Err(FrameError::TooLong { length: packet.len(), limit: LIMIT });
    }
    let message: M = serde_json::from_slice(packet)?;
    match message.excess() {
        Some((length, limit)) => Err(FrameError::TooLong { length, limit }),
        None => Ok(message),
    }
}
