//! The header of packets, and their sizes.
//!
//! Invariant: nothing is checked here, so nothing here is believed.

use std::time::Duration;

use crate::timestamp::{self, Timestamp};

/// The longest packet in bytes, both ways: what IPv6 carries without fragments (RFC 8200, section 5: 1280) less the headers of IPv6
/// and UDP. Fragments are often dropped, and a request with its placeholders is as long as its answer.
pub const PACKET_LIMIT: usize = 1280 - 40 - 8;

/// Bytes of a unique identifier: the least that a server must accept, and that do not repeat (RFC 8915, section 5.3).
pub(crate) const IDENTIFIER: usize = 32;

/// Bytes of the transmit timestamp.
pub(crate) const TRANSMIT: usize = 8;

/// Bytes of an NTP packet before its extension fields (RFC 5905, section 7.3).
pub(crate) const PACKET_HEADER: usize = 48;

/// The header of a packet (RFC 5905, section 7.3).
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) leap: u8,
    pub(crate) version: u8,
    pub(crate) mode: u8,
    pub(crate) stratum: u8,
    pub(crate) precision: i8,
    pub(crate) root_delay: u32,
    pub(crate) root_dispersion: u32,
    pub(crate) reference: [u8; 4],
    pub(crate) origin: [u8; 8],
    pub(crate) received: Timestamp,
    pub(crate) transmitted: Timestamp,
}

impl Header {
    /// The header of a packet; `None` if it is shorter than one.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let ([first, stratum, _poll, precision], rest) = packet.split_first_chunk()?;
        let (root_delay, rest) = rest.split_first_chunk()?;
        let (root_dispersion, rest) = rest.split_first_chunk()?;
        let (reference, rest) = rest.split_first_chunk()?;
        let (_reference_time, rest) = rest.split_first_chunk::<8>()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (received, rest) = rest.split_first_chunk()?;
        let (transmitted, _) = rest.split_first_chunk()?;
        Some(Self {
            leap: first >> 6,
            version: (first >> 3) & 7,
            mode: first & 7,
            stratum: *stratum,
            precision: i8::from_be_bytes([*precision]),
            root_delay: u32::from_be_bytes(*root_delay),
            root_dispersion: u32::from_be_bytes(*root_dispersion),
            reference: *reference,
            origin: *origin,
            received: Timestamp::from_bits(u64::from_be_bytes(*received)),
            transmitted: Timestamp::from_bits(u64::from_be_bytes(*transmitted)),
        })
    }

    /// Whether the packet is a kiss with this code.
    pub(crate) fn is_kiss(&self, code: [u8; 4]) -> bool {
        self.stratum == 0 && self.reference == code
    }

    /// The error that the server states.
    pub(crate) fn error(&self) -> Duration {
        (timestamp::short(self.root_delay) / 2)
            .saturating_add(timestamp::short(self.root_dispersion))
            .saturating_add(timestamp::power(self.precision))
    }
}
