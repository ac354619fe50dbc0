//! Addresses within addresses.
//!
//! Invariant: an address that leads to an IPv4 host is judged as that host too, in whatever form it is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The maximum number of addresses of one answer that are judged: an answer over UDP with EDNS has room for some seventy IPv4
/// addresses (1232 bytes), and none is worth more attempts.
pub const MAX_ADDRESSES: usize = 64;

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

/// The IPv4 addresses that an IPv6 address leads to by a translator or a tunnel; some have several, since the address alone does not
/// tell which is meant. Of NAT64 with a prefix of the operator's own nothing is known: such a prefix is judged as the public addresses
/// that it consists of.
pub fn embedded(address: IpAddr) -> impl Iterator<Item = Embedded> {
    let found = match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(v6) => within(v6),
    };
    found.into_iter()
}

fn within(address: Ipv6Addr) -> Vec<Embedded> {
    let one = |high: u16, low: u16, form| vec![Embedded { address: join(high, low), form }];
    let segments = address.segments();
    let mut found = match segments {
        // The unspecified address and ::1 are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Vec::new(),
        [0, 0, 0, 0, 0, 0xffff, high, low] => one(high, low, "IPv4-mapped"),
        [0, 0, 0, 0, 0, 0, high, low] => one(high, low, "IPv4-compatible"),
        [0, 0, 0, 0, 0xffff, 0, high, low] => one(high, low, "IPv4-translated"),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => one(high, low, "NAT64"),
        [0x64, 0xff9b, 1, ..] => local_nat64(address),
        [0x2002, high, low, ..] => one(high, low, "6to4"),
        [0x2001, 0, server_high, server_low, _, _, high, low] => vec![
            Embedded { address: join(server_high, server_low), form: "Teredo server" },
            // RFC 4380, section 4: all bits of the client's address are inverted.
            Embedded { address: join(!high, !low), form: "Teredo client" },
        ],
        _ => Vec::new(),
    };
    // RFC 5214, section 6.1: in any prefix, also in one that contains an address itself.
    if let [.., 0 | 0x200, 0x5efe, high, low] = segments {
        found.push(Embedded { address: join(high, low), form: "ISATAP" });
    }
    found
}

/// `64:ff9b:1::/48` is for translators with any prefix within it (RFC 8215): the address is in one of four places (RFC 6052, section
/// 2.2), and the suffix after it may be anything. A place that holds "this network" (0.0.0.0/8) is not meant, except the last one: an
/// address that ends in zeros is refused, as 0.0.0.0 is.
fn local_nat64(address: Ipv6Addr) -> Vec<Embedded> {
    let [.., at6, at7, _, at9, at10, at11, at12, at13, at14, at15] = address.octets();
    let elsewhere = [
        ([at6, at7, at9, at10], "NAT64 with a prefix of 48 bits"),
        ([at7, at9, at10, at11], "NAT64 with a prefix of 56 bits"),
        ([at9, at10, at11, at12], "NAT64 with a prefix of 64 bits"),
    ];
    let elsewhere = elsewhere.into_iter().filter(|([first, ..], _)| *first != 0);
    std::iter::once(([at12, at13, at14, at15], "NAT64"))
        .chain(elsewhere)
        .map(|(octets, form)| Embedded { address: octets.into(), form })
        .collect()
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}
