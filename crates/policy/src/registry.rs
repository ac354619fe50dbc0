//! Addresses that are not simply a host on the internet, and where that is defined.
//!
//! Invariant: a table. Of all ranges that contain an address, the longest prefix decides. Sources are the IANA registries of IPv4 and
//! IPv6 special-purpose addresses (RFC 6890, RFC 8190), of IPv4 address space and of IPv6 global unicast assignments, as of November
//! 2026, and for metadata services public descriptions of the clouds that are named. An entry that IANA marks as globally reachable is
//! left out where it is a service for everyone (AS112, AMT); within 192.0.0.0/24 and `2001::/23` it is refused with the rest.

use std::net::IpAddr;

use crate::cidr::Cidr;

/// What a special address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The unspecified address and the rest of "this network": Linux connects to the machine itself.
    Unspecified,
    /// The machine itself.
    Loopback,
    /// A private network.
    Private,
    /// The link that the machine is attached to.
    LinkLocal,
    /// A service that a cloud offers to each of its virtual machines: credentials, configuration, user data.
    Metadata,
    /// Between a provider's NAT and its customers (CGNAT).
    Shared,
    /// A group of machines.
    Multicast,
    /// Every machine of the link.
    Broadcast,
    /// Examples in documentation.
    Documentation,
    /// Benchmarks of network devices.
    Benchmarking,
    /// An IPv6 form of an IPv4 address that a router or the machine translates.
    Transition,
    /// NAT64: as good as the IPv4 address in it, which alone decides.
    Nat64,
    /// Not assigned to hosts.
    Reserved,
}

impl Class {
    /// What a message calls it, such as `a private address`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::Shared => "a shared address (CGNAT)",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "a broadcast address",
            Self::Documentation => "an address for documentation",
            Self::Benchmarking => "an address for benchmarks",
            Self::Transition => "a transition address (IPv4 within IPv6)",
            Self::Nat64 => "a NAT64 address",
            Self::Reserved => "a reserved address",
        }
    }

    /// Whether such an address leads to the machine that makes the connection, to a service of its cloud for that machine, or to all
    /// machines of its link. The host refuses these whatever the manifest allows, unless its operator allows them.
    #[must_use]
    pub fn is_of_the_host(self) -> bool {
        matches!(
            self,
            Self::Unspecified
                | Self::Loopback
                | Self::LinkLocal
                | Self::Metadata
                | Self::Multicast
                | Self::Broadcast
        )
    }
}

/// A special range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Its addresses.
    pub range: Cidr,
    /// What they are.
    pub class: Class,
    /// The document that says so.
    pub source: &'static str,
}

/// The special range with the longest prefix that contains `address`; `None`: a public address.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static Special> {
    SPECIAL
        .iter()
        .filter(|special| special.range.contains(address))
        .max_by_key(|special| special.range.length())
}

const fn v4(network: [u8; 4], length: u8, class: Class, source: &'static str) -> Special {
    Special { range: Cidr::v4(network, length), class, source }
}

const fn v6(network: u128, length: u8, class: Class, source: &'static str) -> Special {
    Special { range: Cidr::v6(network, length), class, source }
}

/// An IPv6 address from its first 32 and its last 64 bits.
const fn halves(first: u32, last: u64) -> u128 {
    let mut bytes = [0; 16];
    let (high, low) = bytes.split_at_mut(8);
    high.split_at_mut(4).0.copy_from_slice(&first.to_be_bytes());
    low.copy_from_slice(&last.to_be_bytes());
    u128::from_be_bytes(bytes)
}

/// IPv4.
const V4: [Special; 25] = [
    v4([0, 0, 0, 0], 8, Class::Unspecified, "RFC 791, section 3.2"),
    v4([10, 0, 0, 0], 8, Class::Private, "RFC 1918"),
    v4([100, 64, 0, 0], 10, Class::Shared, "RFC 6598"),
    v4([100, 100, 100, 200], 32, Class::Metadata, "Alibaba Cloud, instance metadata"),
    v4([127, 0, 0, 0], 8, Class::Loopback, "RFC 1122, section 3.2.1.3"),
    v4([168, 63, 129, 16], 32, Class::Metadata, "Azure, WireServer"),
    v4([169, 254, 0, 0], 16, Class::LinkLocal, "RFC 3927"),
    v4([169, 254, 0, 23], 32, Class::Metadata, "Tencent Cloud, instance metadata"),
    v4([169, 254, 10, 10], 32, Class::Metadata, "Tencent Cloud, instance metadata"),
    v4([169, 254, 42, 42], 32, Class::Metadata, "Scaleway, instance metadata"),
    v4(
        [169, 254, 169, 254],
        32,
        Class::Metadata,
        "AWS, Azure, Google Cloud, Oracle Cloud and others, instance metadata",
    ),
    v4([169, 254, 170, 2], 32, Class::Metadata, "AWS ECS, task credentials"),
    v4([169, 254, 170, 23], 32, Class::Metadata, "AWS EKS, pod identity"),
    v4([172, 16, 0, 0], 12, Class::Private, "RFC 1918"),
    v4([192, 0, 0, 0], 24, Class::Reserved, "RFC 6890, section 2.1"),
    v4([192, 0, 0, 192], 32, Class::Metadata, "Oracle Cloud Classic, instance metadata"),
    v4([192, 0, 2, 0], 24, Class::Documentation, "RFC 5737"),
    v4([192, 88, 99, 0], 24, Class::Transition, "RFC 7526"),
    v4([192, 168, 0, 0], 16, Class::Private, "RFC 1918"),
    v4([198, 18, 0, 0], 15, Class::Benchmarking, "RFC 2544"),
    v4([198, 51, 100, 0], 24, Class::Documentation, "RFC 5737"),
    v4([203, 0, 113, 0], 24, Class::Documentation, "RFC 5737"),
    v4([224, 0, 0, 0], 4, Class::Multicast, "RFC 5771"),
    v4([240, 0, 0, 0], 4, Class::Reserved, "RFC 1112, section 4"),
    v4([255, 255, 255, 255], 32, Class::Broadcast, "RFC 919, section 7"),
];

/// IPv6: all but `2000::/3`, which is global unicast, and what is special in it.
const V6: [Special; 35] = [
    v6(halves(0, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0, 0), 96, Class::Transition, "RFC 4291, section 2.5.5.1 (IPv4-compatible)"),
    v6(halves(0, 0), 128, Class::Unspecified, "RFC 4291, section 2.5.2"),
    v6(halves(0, 1), 128, Class::Loopback, "RFC 4291, section 2.5.3"),
    v6(halves(0, 0xffff_0000_0000), 96, Class::Transition, "RFC 4291, section 2.5.5.2 (IPv4-mapped)"),
    v6(halves(0, 0xffff_0000_0000_0000), 96, Class::Transition, "RFC 2765, section 2.1 (IPv4-translated)"),
    v6(halves(0x0064_ff9b, 0), 96, Class::Nat64, "RFC 6052, section 2.1"),
    v6(halves(0x0064_ff9b, 0) | 1 << 80, 48, Class::Transition, "RFC 8215"),
    v6(halves(0x0100_0000, 0), 64, Class::Reserved, "RFC 6666 (discard only)"),
    v6(halves(0x0100_0000, 0) | 1 << 64, 64, Class::Reserved, "RFC 9780 (dummy prefix)"),
    v6(halves(0x2001_0000, 0), 23, Class::Reserved, "RFC 2928"),
    v6(halves(0x2001_0000, 0), 32, Class::Transition, "RFC 4380 (Teredo)"),
    v6(halves(0x2001_0002, 0), 48, Class::Benchmarking, "RFC 5180"),
    v6(halves(0x2001_0020, 0), 28, Class::Reserved, "RFC 7343 (ORCHIDv2)"),
    v6(halves(0x2001_0db8, 0), 32, Class::Documentation, "RFC 3849"),
    v6(halves(0x2002_0000, 0), 16, Class::Transition, "RFC 3056 (6to4)"),
    v6(halves(0x3fff_0000, 0), 20, Class::Documentation, "RFC 9637"),
    v6(halves(0x4000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0x5f00_0000, 0), 16, Class::Reserved, "RFC 9602 (segment routing)"),
    v6(halves(0x6000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0x8000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0xa000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0xc000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0xe000_0000, 0), 3, Class::Reserved, NOT_UNICAST),
    v6(halves(0xfc00_0000, 0), 7, Class::Private, "RFC 4193 (unique local)"),
    v6(halves(0xfd00_0042, 0x42), 128, Class::Metadata, "Scaleway, instance metadata"),
    v6(halves(0xfd00_00c1, 0xa9fe_a9fe), 128, Class::Metadata, "Oracle Cloud, instance metadata"),
    v6(halves(0xfd00_0100, 0x0100_0200), 128, Class::Metadata, "Alibaba Cloud, instance metadata"),
    v6(
        halves(0xfd00_0ec2, 0),
        32,
        Class::Metadata,
        "AWS, instance services: metadata, credentials, DNS, time",
    ),
    v6(halves(0xfd00_a9fe, 1) | 0xa9fe << 80, 128, Class::Metadata, "Linode, instance metadata"),
    v6(halves(0xfd20_00ce, 0x254), 128, Class::Metadata, "Google Cloud, instance metadata"),
    v6(halves(0xfe80_0000, 0), 10, Class::LinkLocal, "RFC 4291, section 2.5.6"),
    v6(halves(0xfe80_0000, 0xa9fe_a9fe), 128, Class::Metadata, "OpenStack, instance metadata"),
    v6(halves(0xfec0_0000, 0), 10, Class::Private, "RFC 3879 (site-local)"),
    v6(halves(0xff00_0000, 0), 8, Class::Multicast, "RFC 4291, section 2.7"),
];

const NOT_UNICAST: &str = "IANA, IPv6 address space (not global unicast)";

/// Every special range, IPv4 first.
pub static SPECIAL: [Special; V4.len() + V6.len()] = {
    let mut all = [V4[0]; V4.len() + V6.len()];
    let (first, second) = all.split_at_mut(V4.len());
    first.copy_from_slice(&V4);
    second.copy_from_slice(&V6);
    all
};
