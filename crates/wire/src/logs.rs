//! Port 17001: the output of the services, as frames with a binary header.
//!
//! After the hellos the host sends one [`Subscribe`] frame (JSON) and then only reads. Each frame from the enclave
//! contains one [`Record`]:
//!
//! ```text
//! u8 kind  0 = output, 1 = gap
//! output:  u64 seq | u64 time, ns since boot | u8 stream (1 stdout, 2 stderr, 3 supervisor) | u8 n | n bytes: service
//!          | the rest: the output as it was written, split anywhere
//! gap:     u64 first lost seq | u64 count
//! ```
//!
//! All integers are big-endian. Sequence numbers span the whole enclave and increase by one per record; a gap is always
//! announced by a gap record. The last frame is empty ([`END`]): the reader has everything it requested and closes the
//! connection. A connection that ends without it was interrupted.

use serde::{Deserialize, Serialize};

/// The body of the frame after the last record. The end of the stream alone is not sufficient: not every transport
/// forwards the end of one direction (`vhost-device-vsock` 0.3.0 reports it when both have ended), and none reports
/// whether the peer had more to send.
pub const END: &[u8] = b"";

/// Maximum number of output bytes in one record: with its header it fits in one vsock write.
pub const MAX_OUTPUT: usize = 30 * 1024;

/// Maximum length of a service name in bytes; the manifest enforces it too.
pub const MAX_NAME: usize = 63;

/// Maximum memory of the history of one stream in bytes: the most recent output and its index. Each stream has its own,
/// so that a service that writes a lot or in short lines displaces only its own lines.
pub const HISTORY_BYTES: u64 = 1024 * 1024;

/// Bytes of a history used for the index: 8,192 records of 32 bytes. A read takes everything that is in the pipe, so
/// one record covers many lines of a service that writes fast; for one that writes line by line it covers
/// [`RING_BYTES`] of lines of 96 bytes.
pub const INDEX_BYTES: u64 = 256 * 1024;

/// Bytes of a history used for output: some ten thousand lines.
pub const RING_BYTES: u64 = HISTORY_BYTES - INDEX_BYTES;

/// Maximum memory for the supervisor's own log lines about one service in bytes: the last lines and their index. Each
/// service has its own share, so that one that fails repeatedly does not displace lines about another.
pub const SHARE_BYTES: u64 = 128 * 1024;

/// Bytes of a share used for the index: 1,024 records of 32 bytes, one per line.
pub const SHARE_INDEX_BYTES: u64 = 32 * 1024;

/// Bytes of a share used for lines: as many lines of 96 bytes as it has records.
pub const SHARE_RING_BYTES: u64 = SHARE_BYTES - SHARE_INDEX_BYTES;

/// Shares in addition to those of the services: one for the enclave as a whole, one for connections from outside.
pub const OTHER_SHARES: u64 = 2;

/// Maximum memory of the logs of `services`, of which `forwarding` have their output stored: two histories for each of
/// these, and the supervisor's shares. A page of a history is allocated when it is first written to, so a stream with
/// little output takes two pages, and one without output none.
#[must_use]
pub const fn memory(services: u64, forwarding: u64) -> u64 {
    let outputs = forwarding.saturating_mul(2).saturating_mul(HISTORY_BYTES);
    outputs.saturating_add(services.saturating_add(OTHER_SHARES).saturating_mul(SHARE_BYTES))
}

const KIND_OUTPUT: u8 = 0;
const KIND_GAP: u8 = 1;

/// The reader's request after the hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The first sequence number wanted. Records that are no longer stored are reported as a gap.
    pub from: u64,
    /// Whether to keep sending new records, or to end after the existing ones.
    pub follow: bool,
}

/// The source of an output record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Written by the supervisor about a service, or about itself.
    Supervisor,
}

/// One record of the log channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes written by a service.
    Output {
        /// Sequence number; increases by one per record.
        seq: u64,
        /// Nanoseconds since the enclave's boot (`CLOCK_MONOTONIC`).
        time_ns: u64,
        /// The service's name in the manifest.
        service: String,
        /// The stream it was written to.
        stream: Stream,
        /// The output as it was written: any bytes, split anywhere.
        bytes: Vec<u8>,
    },
    /// Records that no longer exist.
    Gap {
        /// The first missing sequence number.
        first: u64,
        /// Number of missing records.
        count: u64,
    },
}

/// An invalid record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends within a field.
    #[error("truncated log record")]
    Truncated,
    /// A field has an undefined value.
    #[error("log record with unknown {field} {value}")]
    Unknown {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The service name is not UTF-8 or too long.
    #[error("log record with an invalid service name")]
    Name,
}

impl Record {
    /// Encodes the record as the body of a frame. A name over [`MAX_NAME`] bytes is refused.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        match self {
            Self::Gap { first, count } => {
                let mut out = vec![KIND_GAP];
                out.extend_from_slice(&first.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
                Ok(out)
            }
            Self::Output { seq, time_ns, service, stream, bytes } => {
                let length = u8::try_from(service.len())
                    .ok()
                    .filter(|n| usize::from(*n) <= MAX_NAME)
                    .ok_or(RecordError::Name)?;
                let mut out = vec![KIND_OUTPUT];
                out.extend_from_slice(&seq.to_be_bytes());
                out.extend_from_slice(&time_ns.to_be_bytes());
                out.push(stream.to_byte());
                out.push(length);
                out.extend_from_slice(service.as_bytes());
                out.extend_from_slice(bytes);
                Ok(out)
            }
        }
    }

    /// Decodes the body of a frame.
    pub fn from_bytes(body: &[u8]) -> Result<Self, RecordError> {
        let mut rest = body;
        match take_u8(&mut rest)? {
            KIND_GAP => Ok(Self::Gap { first: take_u64(&mut rest)?, count: take_u64(&mut rest)? }),
            KIND_OUTPUT => {
                let seq = take_u64(&mut rest)?;
                let time_ns = take_u64(&mut rest)?;
                let stream = Stream::from_byte(take_u8(&mut rest)?)?;
                let length = usize::from(take_u8(&mut rest)?);
                let (name, bytes) = rest.split_at_checked(length).ok_or(RecordError::Truncated)?;
                let service = std::str::from_utf8(name)
                    .ok()
                    .filter(|n| n.len() <= MAX_NAME)
                    .ok_or(RecordError::Name)?;
                Ok(Self::Output { seq, time_ns, service: service.to_owned(), stream, bytes: bytes.to_vec() })
            }
            value => Err(RecordError::Unknown { field: "kind", value }),
        }
    }
}

impl Stream {
    /// The byte of this stream in a record.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Supervisor => 3,
        }
    }

    /// The stream of a record's byte.
    pub const fn from_byte(value: u8) -> Result<Self, RecordError> {
        match value {
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            3 => Ok(Self::Supervisor),
            _ => Err(RecordError::Unknown { field: "stream", value }),
        }
    }
}

fn take_u8(rest: &mut &[u8]) -> Result<u8, RecordError> {
    let (first, tail) = rest.split_first().ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(*first)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, RecordError> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_output_record_has_these_bytes() {
        let record = Record::Output {
            seq: 1,
            time_ns: 2,
            service: "web".into(),
            stream: Stream::Stderr,
            bytes: b"\xffhi\n".to_vec(),
        };
        assert_eq!(record.to_bytes().unwrap(), b"\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x02\x03web\xffhi\n");
    }

    #[test]
    fn the_memory_of_sixty_services_matches_the_documentation() {
        assert_eq!(memory(60, 60), (120 * 1024 + 62 * 128) * 1024);
        assert_eq!(memory(60, 0), 62 * SHARE_BYTES);
    }

    #[test]
    fn a_gap_record_has_these_bytes() {
        let gap = Record::Gap { first: 5, count: 3 };
        assert_eq!(gap.to_bytes().unwrap(), b"\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x03");
    }

    proptest! {
        #[test]
        fn an_encoded_record_decodes_to_the_same_record(
            seq: u64, time_ns: u64, service in "[a-z]{1,63}", bytes: Vec<u8>, stream in 1u8..4,
        ) {
            let record =
                Record::Output { seq, time_ns, service, stream: Stream::from_byte(stream).unwrap(), bytes };
            prop_assert_eq!(Record::from_bytes(&record.to_bytes().unwrap()).unwrap(), record);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(body: Vec<u8>) {
            if let Ok(record) = Record::from_bytes(&body) {
                prop_assert!(record.to_bytes().is_ok());
            }
        }
    }
}
