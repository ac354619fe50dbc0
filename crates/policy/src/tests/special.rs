//! Special addresses, and addresses within addresses.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Cidr, Class, Judge, SPECIAL, canonical, embedded, special};

/// The first and last addresses of ranges, and their neighbours.
const CLASSES: &[(&str, Option<Class>)] = &[
    ("0.0.0.0", Some(Class::Unspecified)),
    ("0.255.255.255", Some(Class::Unspecified)),
    ("1.0.0.0", None),
    ("8.8.8.8", None),
    ("9.255.255.255", None),
    ("10.0.0.0", Some(Class::Private)),
    ("10.255.255.255", Some(Class::Private)),
    ("11.0.0.0", None),
    ("100.63.255.255", None),
    ("100.64.0.0", Some(Class::Shared)),
    ("100.100.100.200", Some(Class::Metadata)),
    ("100.127.255.255", Some(Class::Shared)),
    ("100.128.0.0", None),
    ("126.255.255.255", None),
    ("127.0.0.1", Some(Class::Loopback)),
    ("127.255.255.255", Some(Class::Loopback)),
    ("168.63.129.15", None),
    ("168.63.129.16", Some(Class::Metadata)),
    ("169.254.0.1", Some(Class::LinkLocal)),
    ("169.254.0.23", Some(Class::Metadata)),
    ("169.254.169.254", Some(Class::Metadata)),
    ("169.254.170.2", Some(Class::Metadata)),
    ("169.254.170.23", Some(Class::Metadata)),
    ("169.254.255.255", Some(Class::LinkLocal)),
    ("172.15.255.255", None),
    ("172.16.0.0", Some(Class::Private)),
    ("172.31.255.255", Some(Class::Private)),
    ("172.32.0.0", None),
    ("192.0.0.9", Some(Class::Reserved)),
    ("192.0.0.192", Some(Class::Metadata)),
    ("192.0.1.0", None),
    ("192.0.2.1", Some(Class::Documentation)),
    ("192.88.99.1", Some(Class::Transition)),
    ("192.167.255.255", None),
    ("192.168.0.0", Some(Class::Private)),
    ("192.169.0.0", None),
    ("198.17.255.255", None),
    ("198.19.255.255", Some(Class::Benchmarking)),
    ("198.51.100.255", Some(Class::Documentation)),
    ("203.0.113.0", Some(Class::Documentation)),
    ("223.255.255.255", None),
    ("224.0.0.1", Some(Class::Multicast)),
    ("239.255.255.255", Some(Class::Multicast)),
    ("240.0.0.0", Some(Class::Reserved)),
    ("255.255.255.254", Some(Class::Reserved)),
    ("255.255.255.255", Some(Class::Broadcast)),
    ("::", Some(Class::Unspecified)),
    ("::1", Some(Class::Loopback)),
    ("::2", Some(Class::Transition)),
    ("::8.8.8.8", Some(Class::Transition)),
    ("::ffff:0:8.8.8.8", Some(Class::Transition)),
    ("64:ff9b::8.8.8.8", Some(Class::Nat64)),
    ("64:ff9b::1:0:0", Some(Class::Reserved)),
    ("64:ff9b:1::1", Some(Class::Transition)),
    ("100::1", Some(Class::Reserved)),
    ("1fff:ffff::", Some(Class::Reserved)),
    ("2001::1", Some(Class::Transition)),
    ("2001:2::1", Some(Class::Benchmarking)),
    ("2001:20::1", Some(Class::Reserved)),
    ("2001:1ff:ffff::", Some(Class::Reserved)),
    ("2001:200::", None),
    ("2001:db8::1", Some(Class::Documentation)),
    ("2001:4860:4860::8888", None),
    ("2002:808:808::1", Some(Class::Transition)),
    ("2600::1", None),
    ("3fff::1", Some(Class::Documentation)),
    ("3fff:1000::", None),
    ("4000::", Some(Class::Reserved)),
    ("5f00::1", Some(Class::Reserved)),
    ("8000::", Some(Class::Reserved)),
    ("fbff::", Some(Class::Reserved)),
    ("fc00::", Some(Class::Private)),
    ("fd00:ec2::254", Some(Class::Metadata)),
    ("fd00:ec2::23", Some(Class::Metadata)),
    ("fd00:42::42", Some(Class::Metadata)),
    ("fd00:c1::a9fe:a9fe", Some(Class::Metadata)),
    ("fd00:100::100:200", Some(Class::Metadata)),
    ("fd00:a9fe:a9fe::1", Some(Class::Metadata)),
    ("fd20:ce::254", Some(Class::Metadata)),
    ("fdff::1", Some(Class::Private)),
    ("fe00::1", Some(Class::Reserved)),
    ("fe80::1", Some(Class::LinkLocal)),
    ("fe80::a9fe:a9fe", Some(Class::Metadata)),
    ("febf::1", Some(Class::LinkLocal)),
    ("fec0::1", Some(Class::Private)),
    ("ff02::1", Some(Class::Multicast)),
];

/// Addresses, and the IPv4 addresses in them.
const EMBEDDED: &[(&str, &[&str])] = &[
    ("10.0.0.1", &[]),
    ("::", &[]),
    ("::1", &[]),
    ("::2", &["0.0.0.2"]),
    ("::10.0.0.1", &["10.0.0.1"]),
    ("::ffff:10.0.0.1", &["10.0.0.1"]),
    ("::ffff:0:10.0.0.1", &["10.0.0.1"]),
    ("64:ff9b::10.0.0.1", &["10.0.0.1"]),
    ("64:ff9b:1::10.0.0.1", &["10.0.0.1"]),
    ("2002:a00:1::5", &["10.0.0.1"]),
    ("2001:0:102:304:0:0:f5ff:fffe", &["1.2.3.4", "10.0.0.1"]),
    ("fe80::5efe:10.0.0.1", &["10.0.0.1"]),
    ("2600::200:5efe:10.0.0.1", &["10.0.0.1"]),
    ("2600::5eff:a00:1", &[]),
    ("2600::a00:1", &[]),
];

#[test]
fn special_addresses_have_their_class() {
    for (address, class) in CLASSES {
        let parsed: IpAddr = address.parse().unwrap();
        assert_eq!(special(parsed).map(|special| special.class), *class, "{address}");
    }
}

#[test]
fn the_table_is_well_formed() {
    for (index, entry) in SPECIAL.iter().enumerate() {
        assert_eq!(Cidr::around(entry.range.network(), entry.range.length()), entry.range);
        let found = special(entry.range.network()).unwrap();
        assert!(found.range.is_within(&entry.range), "{}", entry.range);
        assert!(SPECIAL.iter().skip(index + 1).all(|other| other.range != entry.range), "{}", entry.range);
        assert!(!entry.source.is_empty());
    }
}

#[test]
fn ipv4_addresses_are_found_within_ipv6_addresses() {
    for (address, expected) in EMBEDDED {
        let found: Vec<_> =
            embedded(address.parse().unwrap()).map(|within| within.address.to_string()).collect();
        assert_eq!(found, *expected, "{address}");
    }
    let mapped = "::ffff:10.0.0.1".parse().unwrap();
    assert_eq!(canonical(mapped), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
}

#[test]
fn a_range_has_one_form() {
    for (text, shown) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("::/0", "::/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ] {
        assert_eq!(Cidr::parse(text).unwrap().to_string(), shown);
    }
    for (text, words) in [
        ("10.0.0.1/8", "the range is 10.0.0.0/8"),
        ("10.0.0.0/33", "prefix length"),
        ("10.0.0.0/08", "prefix length"),
        ("10.0.0.0/+8", "prefix length"),
        ("10.0.0.0/", "prefix length"),
        ("10.0.0.0/-1", "prefix length"),
        ("10.0/8", "not an address"),
        ("010.0.0.0/8", "not an address"),
        ("[::1]/128", "not an address"),
        ("fe80::%1/64", "not an address"),
        ("::ffff:10.0.0.0/104", "write the IPv4 range"),
        ("::/129", "prefix length"),
    ] {
        let error = Cidr::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn an_address_with_several_readings_is_judged_by_each() {
    let policy = super::web(
        &["64:ff9b:1::/48 443 tcp", "2002::/16 443 tcp", "2600::/16 443 tcp"],
        &["9.9.9.9 any any"],
    );
    for (text, allowed) in [
        ("64:ff9b:1::808:808", true),
        // With prefixes of 48, 56 and 64 bits, and a suffix that is a public address.
        ("64:ff9b:1:7f00:0:100:808:808", false),
        ("64:ff9b:1:a00:0:100:808:808", false),
        ("64:ff9b:1:909:9:900:808:808", false),
        ("64:ff9b:1:7f:0:1:808:808", false),
        ("64:ff9b:1:0:7f:0:108:808", false),
        ("64:ff9b:1:0:9:909:908:808", false),
        ("64:ff9b:1:808:8:800::", false),
        ("2002:808:808::1", true),
        ("2002:808:808::5efe:8.8.8.8", true),
        ("2002:808:808::5efe:127.0.0.1", false),
        ("2002:808:808::200:5efe:10.0.0.1", false),
        ("2002:7f00:1::5efe:8.8.8.8", false),
        ("2600::5efe:9.9.9.9", false),
    ] {
        let address = text.parse().unwrap();
        let decision = policy.by_number("web", address, super::tcp(443));
        assert_eq!(decision.allowed(), allowed, "{text}: {decision:?}");
    }
}
