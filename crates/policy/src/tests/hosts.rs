//! Canonical forms of hosts.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Host, HostError, Name, Protocol, Target, TargetError};

/// Names in many spellings, and the canonical form.
const NAMES: &[(&str, &str)] = &[
    ("example.com", "example.com"),
    ("EXAMPLE.com", "example.com"),
    ("eXaMpLe.CoM.", "example.com"),
    ("example.com.", "example.com"),
    ("com", "com"),
    ("a", "a"),
    ("a.b.c.d.e.f.g", "a.b.c.d.e.f.g"),
    ("_sip._tcp.example.com", "_sip._tcp.example.com"),
    ("_Dmarc.example.com", "_dmarc.example.com"),
    ("my_host", "my_host"),
    ("r3---sn-4g5e6n7k.example.com", "r3---sn-4g5e6n7k.example.com"),
    ("ab--cd.example", "ab--cd.example"),
    ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
    ("XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"),
    ("münchen.de", "xn--mnchen-3ya.de"),
    ("MÜNCHEN.de", "xn--mnchen-3ya.de"),
    ("mu\u{308}nchen.de", "xn--mnchen-3ya.de"),
    ("faß.de", "xn--fa-hia.de"),
    ("straße.example", "xn--strae-oqa.example"),
    ("βόλος.com", "xn--nxasmm1c.com"),
    ("例え.jp", "xn--r8jz45g.jp"),
    ("例え。jp", "xn--r8jz45g.jp"),
    ("example．com", "example.com"),
    ("ｅｘａｍｐｌｅ.com", "example.com"),
    ("exam\u{ad}ple.com", "example.com"),
    ("exam\u{200b}ple.com", "example.com"),
    ("ℂ𝕠𝕞.example", "com.example"),
    ("bücher.example.", "xn--bcher-kva.example"),
    ("1.example.com", "1.example.com"),
    ("1e100.net", "1e100.net"),
    ("0x7f.example", "0x7f.example"),
    ("127.0.0.1.example.com", "127.0.0.1.example.com"),
    ("127-0-0-1.example.com", "127-0-0-1.example.com"),
    ("10.0.0.1.nip.io", "10.0.0.1.nip.io"),
    ("localhost.example.com", "localhost.example.com"),
    ("localhost4", "localhost4"),
    ("notlocalhost", "notlocalhost"),
    ("x.0xg", "x.0xg"),
    ("a.1b", "a.1b"),
    ("exam\u{2215}ple.com", "xn--example-ff0d.com"),
];

/// IPv4 addresses in every spelling.
const IPV4: &[(&str, [u8; 4])] = &[
    ("127.0.0.1", [127, 0, 0, 1]),
    ("127.0.0.1.", [127, 0, 0, 1]),
    ("127.1", [127, 0, 0, 1]),
    ("127.1.", [127, 0, 0, 1]),
    ("127.0.1", [127, 0, 0, 1]),
    ("0x7f.1", [127, 0, 0, 1]),
    ("0X7F.1", [127, 0, 0, 1]),
    ("0x7f000001", [127, 0, 0, 1]),
    ("0x7F.0x0.0x0.0x1", [127, 0, 0, 1]),
    ("0177.0.0.1", [127, 0, 0, 1]),
    ("0177.0.0.01", [127, 0, 0, 1]),
    ("017700000001", [127, 0, 0, 1]),
    ("2130706433", [127, 0, 0, 1]),
    ("000000177.1", [127, 0, 0, 1]),
    ("0", [0, 0, 0, 0]),
    ("0.0", [0, 0, 0, 0]),
    ("0x0", [0, 0, 0, 0]),
    ("00", [0, 0, 0, 0]),
    ("1", [0, 0, 0, 1]),
    ("4294967295", [255, 255, 255, 255]),
    ("0xffffffff", [255, 255, 255, 255]),
    ("2852039166", [169, 254, 169, 254]),
    ("0xA9FEA9FE", [169, 254, 169, 254]),
    ("169.254.43518", [169, 254, 169, 254]),
    ("169.16689662", [169, 254, 169, 254]),
    ("0251.0376.0251.0376", [169, 254, 169, 254]),
    ("10.65535", [10, 0, 255, 255]),
    ("1.2.772", [1, 2, 3, 4]),
    ("010.0.0.1", [8, 0, 0, 1]),
    ("１２７.０.０.１", [127, 0, 0, 1]),
    ("127。0。0。1", [127, 0, 0, 1]),
    ("①②⑦.0.0.①", [127, 0, 0, 1]),
    ("0ｘ7f.1", [127, 0, 0, 1]),
    ("127\u{ad}.1", [127, 0, 0, 1]),
    ("::ffff:127.0.0.1", [127, 0, 0, 1]),
    ("[::ffff:127.0.0.1]", [127, 0, 0, 1]),
    ("[::FFFF:7F00:1]", [127, 0, 0, 1]),
    ("0:0:0:0:0:ffff:a9fe:a9fe", [169, 254, 169, 254]),
];

/// IPv6 addresses.
const IPV6: &[(&str, &str)] = &[
    ("::1", "::1"),
    ("[::1]", "::1"),
    ("0:0:0:0:0:0:0:1", "::1"),
    ("[0000:0000:0000:0000:0000:0000:0000:0001]", "::1"),
    ("::", "::"),
    ("2001:DB8::A", "2001:db8::a"),
    ("[2001:db8:0:0:1::1]", "2001:db8:0:0:1::1"),
    ("::127.0.0.1", "::7f00:1"),
    ("64:ff9b::10.0.0.1", "64:ff9b::a00:1"),
    ("fe80::1", "fe80::1"),
];

/// What is refused, and why.
const REFUSED: &[(&str, HostError)] = &[
    ("", HostError::Empty),
    (".", HostError::Empty),
    ("..", HostError::EmptyLabel),
    ("a..b", HostError::EmptyLabel),
    (".example.com", HostError::EmptyLabel),
    ("example.com..", HostError::EmptyLabel),
    ("127.0.0..1", HostError::EmptyLabel),
    ("example.com ", HostError::Character(' ')),
    (" example.com", HostError::Character(' ')),
    ("exam ple.com", HostError::Character(' ')),
    ("127.0.0.1 x", HostError::Character(' ')),
    ("example.com\n", HostError::Character('\n')),
    ("example.com\t", HostError::Character('\t')),
    ("example.com\r\nHost", HostError::Character('\r')),
    ("example.com\0", HostError::Character('\0')),
    ("example.com\0.evil.test", HostError::Character('\0')),
    ("exam\u{7f}ple.com", HostError::Character('\u{7f}')),
    ("exam\u{1b}[31mple.com", HostError::NotIpv6),
    ("exam\u{a0}ple.com", HostError::Character('\u{a0}')),
    ("exam\u{3000}ple.com", HostError::Character('\u{3000}')),
    ("exam\u{85}ple.com", HostError::Character('\u{85}')),
    ("exam%70le.com", HostError::Character('%')),
    ("%31%32%37.1", HostError::Character('%')),
    ("user@example.com", HostError::Character('@')),
    ("example.com/path", HostError::Character('/')),
    ("example.com\\x", HostError::Character('\\')),
    ("example.com#x", HostError::Character('#')),
    ("example.com?x", HostError::Character('?')),
    ("*.example.com", HostError::Character('*')),
    ("exa,mple.com", HostError::Character(',')),
    ("\"example.com\"", HostError::Character('"')),
    ("-example.com", HostError::Idna),
    ("example-.com", HostError::Idna),
    ("xn--.com", HostError::Idna),
    ("xn--a.com", HostError::Idna),
    ("xn--example-.com", HostError::Idna),
    ("xn--localhost-.", HostError::Idna),
    ("xn--127-.0.0.1", HostError::Idna),
    ("xn--mnchen-3yA\u{fc}.de", HostError::Idna),
    ("exam\u{fffd}ple.com", HostError::Idna),
    ("\u{301}a.com", HostError::Idna),
    ("٣.example", HostError::Idna),
    ("localhost", HostError::Localhost),
    ("LOCALHOST.", HostError::Localhost),
    ("foo.localhost", HostError::Localhost),
    ("a.b.LocalHost.", HostError::Localhost),
    ("ｌocalhost", HostError::Localhost),
    ("ⓛocalhost", HostError::Localhost),
    ("256.1.1.1", HostError::NotIpv4),
    ("1.2.3.4.5", HostError::NotIpv4),
    ("1.2.3.256", HostError::NotIpv4),
    ("1.2.65536", HostError::NotIpv4),
    ("1.16777216", HostError::NotIpv4),
    ("4294967296", HostError::NotIpv4),
    ("0x100000000", HostError::NotIpv4),
    ("0x7g.1", HostError::NotIpv4),
    ("08.0.0.1", HostError::NotIpv4),
    ("example.com.1", HostError::NotIpv4),
    ("example.0x1", HostError::NotIpv4),
    ("example.0x", HostError::NotIpv4),
    ("0x", HostError::NotIpv4),
    ("1.2.3.-4", HostError::Idna),
    ("99999999999999999999", HostError::NotIpv4),
    ("fe80::1%eth0", HostError::Zone),
    ("[fe80::1%25eth0]", HostError::Zone),
    ("[::1", HostError::NotIpv6),
    ("::1]", HostError::NotIpv6),
    ("[[::1]]", HostError::NotIpv6),
    ("[127.0.0.1]", HostError::NotIpv6),
    ("[]", HostError::NotIpv6),
    ("::ffff:127.1", HostError::NotIpv6),
    ("::ffff:0177.0.0.1", HostError::NotIpv6),
    ("1:2:3", HostError::NotIpv6),
    ("example.com:443", HostError::NotIpv6),
    ("[v1.fe80]", HostError::NotIpv6),
];

#[test]
fn names_have_one_canonical_form() {
    for (input, canonical) in NAMES {
        let host = Host::parse(input).unwrap_or_else(|error| panic!("{input:?}: {error}"));
        assert!(matches!(host, Host::Name(_)), "{input:?}: {host:?}");
        assert_eq!(host.to_string(), *canonical, "{input:?}");
    }
}

#[test]
fn every_spelling_of_an_ipv4_address_is_that_address() {
    for (input, address) in IPV4 {
        let expected = Host::Address(IpAddr::V4(Ipv4Addr::from(*address)));
        assert_eq!(Host::parse(input), Ok(expected), "{input:?}");
        assert_eq!(Name::parse(input), Err(HostError::Address), "{input:?}");
    }
}

#[test]
fn every_spelling_of_an_ipv6_address_is_that_address() {
    for (input, address) in IPV6 {
        let expected = Host::Address(address.parse().unwrap());
        assert_eq!(Host::parse(input), Ok(expected), "{input:?}");
    }
}

#[test]
fn what_programs_could_read_in_two_ways_is_refused() {
    for (input, error) in REFUSED {
        assert_eq!(Host::parse(input), Err(*error), "{input:?}");
        let shown = error.to_string();
        assert!(shown.is_ascii() && !shown.chars().any(char::is_control), "{input:?}: {shown:?}");
    }
}

#[test]
fn lengths_are_those_of_the_dns() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(Name::parse(&longest).is_ok());
    assert!(Name::parse(&format!("{longest}.")).is_ok());
    assert_eq!(Name::parse(&format!("{longest}a")), Err(HostError::TooLong));
    assert_eq!(Name::parse(&format!("{label}a.com")), Err(HostError::TooLong));
    assert_eq!(Name::parse(&"a.".repeat(600)), Err(HostError::TooLong));
    assert_eq!(Name::parse(&format!("{}.com", "ü".repeat(63))), Err(HostError::TooLong));
}

#[test]
fn labels_of_a_dns_message_are_not_split_again() {
    let read = |labels: &[&[u8]]| Name::from_labels(labels.iter().copied());
    assert_eq!(read(&[b"WWW", b"example", b"com"]), Name::parse("www.example.com"));
    assert_eq!(read(&[b"evil.com"]), Err(HostError::Character('.')));
    assert_eq!(read(&[b"example", b"", b"com"]), Err(HostError::EmptyLabel));
    assert_eq!(read(&[b"a\0b", b"com"]), Err(HostError::Character('\0')));
    assert_eq!(read(&["é".as_bytes(), b"com"]), Err(HostError::Character('Ã')));
    assert_eq!(read(&[b"127", b"1"]), Err(HostError::Address));
    assert_eq!(read(&[b"localhost"]), Err(HostError::Localhost));
    assert_eq!(read(&[]), Err(HostError::Empty));
    assert_eq!(read(&[[b'a'; 63].as_slice(); 100]), Err(HostError::TooLong));
}

#[test]
fn targets_have_a_host_and_a_port() {
    for (input, shown) in [
        ("Example.com:443", "example.com:443/tcp"),
        ("[::1]:80", "[::1]:80/tcp"),
        ("127.1:80", "127.0.0.1:80/tcp"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1:1/tcp"),
    ] {
        assert_eq!(Target::parse(input, Protocol::Tcp).unwrap().to_string(), shown);
    }
    for input in ["example.com", "example.com:", "x:0", "x:65536", "x:+1", "::1", "::1:80", "[::1]", "x:4 "] {
        assert_eq!(Target::parse(input, Protocol::Tcp), Err(TargetError::Port), "{input:?}");
    }
    for (input, error) in [("localhost:80", HostError::Localhost), (":80", HostError::Empty)] {
        assert_eq!(Target::parse(input, Protocol::Tcp), Err(TargetError::Host(error)), "{input:?}");
    }
}

#[test]
fn a_port_has_no_leading_zeros() {
    for text in ["a.test:0443", "a.test:00", "a.test:", "a.test:+1"] {
        assert!(crate::Target::parse(text, crate::Protocol::Tcp).is_err(), "{text}");
    }
}
