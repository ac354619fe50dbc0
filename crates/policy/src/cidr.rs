//! Ranges of addresses.
//!
//! Invariant: a range has one form: no host bits are set, and a range of IPv4 addresses is written in IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// Why a text is not a range. The author of the rule must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address before the slash.
    #[error(
        "not an address: write IPv4 as four decimal numbers without leading zeros, IPv6 without brackets or zone"
    )]
    Address,
    /// Not a length after the slash.
    #[error("not a prefix length: 0 to 32 for IPv4, 0 to 128 for IPv6")]
    Length,
    /// Bits after the prefix are set.
    #[error("bits after the prefix are set: the range is {0}")]
    HostBits(Cidr),
    /// IPv4-mapped IPv6.
    #[error("IPv4-mapped addresses are compared as IPv4: write the IPv4 range")]
    Mapped,
}

impl Cidr {
    /// A range of IPv4 addresses, for tables: `network` must have no bits set after `length`.
    pub(crate) const fn v4(network: [u8; 4], length: u8) -> Self {
        let [a, b, c, d] = network;
        Self { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length }
    }

    /// A range of IPv6 addresses, for tables: `network` must have no bits set after `length`.
    pub(crate) const fn v6(network: u128, length: u8) -> Self {
        Self { network: IpAddr::V6(Ipv6Addr::from_bits(network)), length }
    }

    /// Reads `ADDRESS/LENGTH`, or an address alone.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let length = length.map_or(Ok(width(network)), |length| prefix(length, width(network)))?;
        let range = Self::around(network, length);
        if MAPPED.contains(network) && length >= MAPPED.length {
            return Err(CidrError::Mapped);
        }
        if range.network == network { Ok(range) } else { Err(CidrError::HostBits(range)) }
    }

    /// The range of this length that contains `address`; a length over its width is its width.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Self {
        let length = length.min(width(address));
        let network = match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host))
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
            }
        };
        Self { network, length }
    }

    /// Its first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Its prefix length.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` is in it. An address of the other family never is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && Self::around(address, self.length).network == self.network
    }

    /// Whether all of it is in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.length >= other.length && other.contains(self.network)
    }
}

/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
const MAPPED: Cidr = Cidr::v6(0xffff_0000_0000, 96);

/// The number of bits of an address.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn prefix(text: &str, width: u8) -> Result<u8, CidrError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|length| plain && *length <= width).ok_or(CidrError::Length)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
