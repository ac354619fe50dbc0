//! The header of the PROXY protocol, version 2: tells a service who its client is.
//!
//! Its law: it is sent ahead of everything, and only where the manifest asks for it. The format is section 2.2 of
//! `proxy-protocol.txt` (haproxy.org). The address is the host's word and no proof.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every such header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command: a connection on behalf of a client.
const PROXY: u8 = 0x21;

/// Version 2, and the command: a connection of the sender's own, of whose client nothing is known.
const LOCAL: u8 = 0x20;

/// TCP over IPv4, and the bytes of its two addresses and ports.
const TCP4: (u8, u16) = (0x11, 12);

/// TCP over IPv6, and the bytes of its two addresses and ports.
const TCP6: (u8, u16) = (0x21, 36);

/// The header for a client that came to `port` of the enclave.
///
/// The address it came to is known to the host alone; here stands the loopback address, which is the service's own.
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
    fn a_client_over_ipv4_has_these_bytes() {
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xc3\x50\0\x50";
        assert_eq!(header(Some("192.0.2.7:50000".parse().unwrap()), 80), expected);
        assert_eq!(header(Some("[::ffff:192.0.2.7]:50000".parse().unwrap()), 80), expected);
    }

    #[test]
    fn a_client_over_ipv6_has_these_bytes() {
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        expected.extend(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
        expected.extend(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xc3\x50\x01\xbb");
        assert_eq!(header(Some("[2001:db8::1]:50000".parse().unwrap()), 443), expected);
    }

    #[test]
    fn a_client_nobody_knows_is_a_local_connection() {
        assert_eq!(header(None, 80), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
