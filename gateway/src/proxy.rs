//! The header of the PROXY protocol, version 2, which passes the client's address to a service.
//!
//! Invariant: it is sent before all data, and only if the manifest requests it. The format is section 2.2 of
//! `proxy-protocol.txt` (haproxy.org). The host reports the address, which is therefore not trustworthy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of every header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command: a connection on behalf of a client.
const PROXY: u8 = 0x21;

/// Version 2, and the command: a connection without a known client.
const LOCAL: u8 = 0x20;

/// TCP over IPv4, and the length of its two addresses and ports in bytes.
const TCP4: (u8, u16) = (0x11, 12);

/// TCP over IPv6, and the length of its two addresses and ports in bytes.
const TCP6: (u8, u16) = (0x21, 36);

/// The header for a client that connected to `port` of the enclave.
///
/// Only the host knows the address that it connected to; the header contains the loopback address, on which the service
/// listens.
pub(crate) fn header(client: Option<SocketAddr>, port: u16) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let Some(client) = client else {
        bytes.extend([LOCAL, 0, 0, 0]);
        return bytes;
    };
    match client.ip().to_canonical() {
        IpAddr::V4(ip) => {
            begin(&mut bytes, TCP4);
            bytes.extend(ip.octets());
            bytes.extend(Ipv4Addr::LOCALHOST.octets());
        }
        IpAddr::V6(ip) => {
            begin(&mut bytes, TCP6);
            bytes.extend(ip.octets());
            bytes.extend(Ipv6Addr::LOCALHOST.octets());
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes
}

fn begin(bytes: &mut Vec<u8>, (family, length): (u8, u16)) {
    bytes.extend([PROXY, family]);
    bytes.extend(length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_an_ipv4_client_has_the_documented_bytes() {
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xc3\x50\0\x50";
        assert_eq!(header(Some("192.0.2.7:50000".parse().unwrap()), 80), expected);
        assert_eq!(header(Some("[::ffff:192.0.2.7]:50000".parse().unwrap()), 80), expected);
    }

    #[test]
    fn the_header_of_an_ipv6_client_has_the_documented_bytes() {
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        expected.extend(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
        expected.extend(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xc3\x50\x01\xbb");
        assert_eq!(header(Some("[2001:db8::1]:50000".parse().unwrap()), 443), expected);
    }

    #[test]
    fn an_unknown_client_is_a_local_connection() {
        assert_eq!(header(None, 80), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
