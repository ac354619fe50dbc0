//! Addresses within addresses.
//!
//! Invariant: an address that leads to an IPv4 host is judged as that host too, in whatever form it is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address within an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// The address.
    pub address: Ipv4Addr,
    /// The form, by name.
    pub form: &'static str,
}

/// IPv4-mapped addresses (`::ffff:10.0.0.1`) as IPv4: the kernel connects to both in the same way. All others unchanged.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 addresses that an IPv6 address leads to by a translator or a tunnel; a Teredo address has two, its server and its client.
/// Of NAT64 with a prefix of the operator's own nothing is known: such a prefix is judged as the public addresses that it consists of.
pub fn embedded(address: IpAddr) -> impl Iterator<Item = Embedded> {
    let found = match address {
        IpAddr::V4(_) => [None; 2],
        IpAddr::V6(v6) => within(v6),
    };
    found.into_iter().flatten()
}

fn within(address: Ipv6Addr) -> [Option<Embedded>; 2] {
    let one = |high: u16, low: u16, form| [Some(Embedded { address: join(high, low), form }), None];
    match address.segments() {
        // The unspecified address and ::1 are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 2],
        [0, 0, 0, 0, 0, 0xffff, high, low] => one(high, low, "IPv4-mapped"),
        [0, 0, 0, 0, 0, 0, high, low] => one(high, low, "IPv4-compatible"),
        [0, 0, 0, 0, 0xffff, 0, high, low] => one(high, low, "IPv4-translated"),
        // In 64:ff9b:1::/48 RFC 6052 places the address elsewhere if the prefix is shorter than 96 bits; the last 32 bits are zero
        // then, and 0.0.0.0 is refused.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, .., high, low] => one(high, low, "NAT64"),
        [0x2002, high, low, ..] => one(high, low, "6to4"),
        [0x2001, 0, server_high, server_low, _, _, high, low] => [
            Some(Embedded { address: join(server_high, server_low), form: "Teredo server" }),
            // RFC 4380, section 4: all bits of the client's address are inverted.
            Some(Embedded { address: join(!high, !low), form: "Teredo client" }),
        ],
        // RFC 5214, section 6.1, in any prefix.
        [.., 0 | 0x200, 0x5efe, high, low] => one(high, low, "ISATAP"),
        _ => [None; 2],
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}
