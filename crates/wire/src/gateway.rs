//! The socket pair between the supervisor and the gateway, the program that forwards every connection from outside.
//!
//! Invariant: the gateway reads bytes of hosts and clients, so the supervisor treats its messages as hostile: they are
//! bounded, and contain only numbers, a line for the log, or a request for a socket. Each packet is one JSON message of
//! at most [`LIMIT`](crate::packet::LIMIT) bytes, over a `SOCK_SEQPACKET` pair whose ends init keeps open: messages
//! sent while the other side is being restarted are delivered to its successor.
//!
//! The supervisor sends the whole [table](ToGateway::Table) when a gateway starts, when the supervisor itself was
//! restarted, and when the cgroup of a service changes. The gateway replies to each with [`FromGateway::Ready`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::control::IngressCounters;
use crate::logs::MAX_NAME;
use crate::packet::Bounded;

/// The gateway's name among the servants.
pub const NAME: &str = "@gateway";

/// Path of the program in ramdisk 1.
pub const PROGRAM: &str = "/sbin/gateway";

/// The gateway's descriptor of the listener for connections from the host.
pub const LISTENER_FD: i32 = 3;

/// The gateway's descriptor of its end of the socket pair.
pub const CHANNEL_FD: i32 = 4;

/// The gateway's descriptor of the pair to the terminator ([`crate::terminator::CLIENTS_FD`]), if its argument is
/// [`WITH_TERMINATOR`].
pub const TERMINATOR_FD: i32 = 5;

/// The gateway's argument if there is a terminator: the manifest has a port for the attestation server.
pub const WITH_TERMINATOR: &str = "with-terminator";

/// Maximum number of table entries in one packet, each with at most [`MAX_NAME`] bytes for the service and some 120 for
/// the rest.
pub const MAX_TARGETS: usize = 256;

/// Maximum length of a line about a refused connection, in bytes. It quotes an error of the system or of a parser.
pub const MAX_LINE: usize = 512;

/// Maximum number of concurrent connections, divided among the ports as `host-sleeve` divides them. It leaves further
/// clients in its listen queues, so only a host that does not behave like it reaches the limit.
pub const MAX_CONNECTIONS: usize = 4096;

/// Maximum number of concurrent connections whose header has not been read yet, and whose port is therefore unknown: a
/// burst of clients, until each header is read. Further ones wait in the listen queue.
pub const MAX_UNREAD: usize = 256;

/// Descriptors of the gateway for everything but forwarded connections: 512 for its listeners, reactors and the relay's
/// pipes, and one for each connection whose header has not been read.
pub const RESERVED_DESCRIPTORS: usize = 512 + MAX_UNREAD;

/// Maximum number of pending socket requests to the supervisor: a connection that finds every port in use needs one,
/// until the reply arrives.
pub const MAX_LOANS: usize = 16;

/// A message from the supervisor to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToGateway {
    /// The targets of the manifest's ports.
    Table {
        /// Whether these are the first entries. A gateway that is started while a table is being sent may receive the
        /// rest of it, which it ignores.
        first: bool,
        /// At most [`MAX_TARGETS`] entries.
        targets: Vec<Target>,
        /// The port of the attestation server, if there is one: its connections go to the terminator. In every packet of a
        /// table.
        attestation: Option<u16>,
        /// Whether more entries follow in the next packet.
        more: bool,
    },
    /// Refuse new connections from now on, and send [`FromGateway::Drained`] when no connection is open.
    Drain,
    /// Send the counters now.
    Count,
    /// The reply to [`FromGateway::Borrow`], with one descriptor, or none if it failed with `errno`.
    Loaned {
        /// The request's id.
        id: u64,
        /// The system's error number.
        errno: Option<i32>,
    },
}

/// The target of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The port that the host names.
    pub port: u16,
    /// The TCP port of the service.
    pub target: u16,
    /// The service's name, for messages.
    pub service: String,
    /// The ID of the service's cgroup ([`crate::hold::FromInit::Spawned`]); none while the service is not running.
    pub cgroup: Option<u64>,
    /// Whether the service expects a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// A message from the gateway to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromGateway {
    /// It uses the table that was sent last.
    Ready,
    /// The counters since its start. Sent at the first change after a pause, and on request.
    Counters(IngressCounters),
    /// A connection was refused. Sent at most a few times in ten seconds.
    Refused {
        /// A line for the log, at most [`MAX_LINE`] bytes.
        line: String,
    },
    /// All connections are closed after [`ToGateway::Drain`].
    Drained,
    /// Create a TCP socket that is bound to a local port which another program may use as well. At most [`MAX_LOANS`]
    /// at once.
    Borrow {
        /// Chosen by the gateway and repeated in the reply.
        id: u64,
        /// The address that the socket will be connected to: a loopback address.
        to: SocketAddr,
    },
}

impl Bounded for ToGateway {
    fn excess(&self) -> Option<(usize, usize)> {
        let Self::Table { targets, .. } = self else { return None };
        let names = targets.iter().map(|target| (target.service.len(), MAX_NAME));
        std::iter::once((targets.len(), MAX_TARGETS)).chain(names).find(|(length, limit)| length > limit)
    }
}

impl Bounded for FromGateway {
    fn excess(&self) -> Option<(usize, usize)> {
        let Self::Refused { line } = self else { return None };
        Some((line.len(), MAX_LINE)).filter(|(length, limit)| length > limit)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::frame::FrameError;
    use crate::packet::{LIMIT, decode, encode};

    fn target(port: u16, cgroup: Option<u64>) -> Target {
        Target { port, target: 8080, service: "web".into(), cgroup, proxy_protocol: false }
    }

    fn has_bytes<M>(message: &M, bytes: &str)
    where
        M: Serialize + DeserializeOwned + Bounded + PartialEq + std::fmt::Debug,
    {
        assert_eq!(String::from_utf8(encode(message).unwrap()).unwrap(), bytes);
        assert_eq!(&decode::<M>(bytes.as_bytes()).unwrap(), message);
    }

    #[test]
    fn messages_of_the_supervisor_have_these_bytes() {
        let table = ToGateway::Table {
            first: true,
            targets: vec![target(80, Some(7)), target(81, None)],
            attestation: Some(443),
            more: false,
        };
        has_bytes(
            &table,
            r#"{"table":{"first":true,"targets":[{"port":80,"target":8080,"service":"web","cgroup":7,"proxy_protocol":false},{"port":81,"target":8080,"service":"web","cgroup":null,"proxy_protocol":false}],"attestation":443,"more":false}}"#,
        );
        has_bytes(&ToGateway::Drain, r#""drain""#);
        has_bytes(&ToGateway::Count, r#""count""#);
        has_bytes(&ToGateway::Loaned { id: 3, errno: Some(1) }, r#"{"loaned":{"id":3,"errno":1}}"#);
    }

    #[test]
    fn messages_of_the_gateway_have_these_bytes() {
        let counters = IngressCounters { accepted: 1, open: 2, refused: 3, bytes_in: 4, bytes_out: 5 };
        has_bytes(
            &FromGateway::Counters(counters),
            r#"{"counters":{"accepted":1,"open":2,"refused":3,"bytes_in":4,"bytes_out":5}}"#,
        );
        has_bytes(&FromGateway::Ready, r#""ready""#);
        has_bytes(&FromGateway::Drained, r#""drained""#);
        has_bytes(&FromGateway::Refused { line: "no".into() }, r#"{"refused":{"line":"no"}}"#);
        let to = "127.0.0.1:8080".parse().unwrap();
        has_bytes(&FromGateway::Borrow { id: 3, to }, r#"{"borrow":{"id":3,"to":"127.0.0.1:8080"}}"#);
    }

    #[test]
    fn a_message_over_a_limit_is_refused() {
        let line = "x".repeat(MAX_LINE + 1);
        let packet = encode(&FromGateway::Refused { line }).unwrap();
        assert!(matches!(decode::<FromGateway>(&packet), Err(FrameError::TooLong { limit: MAX_LINE, .. })));
        let targets = vec![target(80, None); MAX_TARGETS + 1];
        let packet =
            encode(&ToGateway::Table { first: true, targets, attestation: None, more: false }).unwrap();
        assert!(matches!(decode::<ToGateway>(&packet), Err(FrameError::TooLong { limit: MAX_TARGETS, .. })));
        assert!(decode::<FromGateway>(&vec![b' '; LIMIT + 1]).is_err());
    }

    #[test]
    fn the_longest_table_of_one_packet_fits() {
        let service = "x".repeat(MAX_NAME);
        let longest = Target {
            port: u16::MAX,
            target: u16::MAX,
            service,
            cgroup: Some(u64::MAX),
            proxy_protocol: false,
        };
        let table = ToGateway::Table {
            first: true,
            targets: vec![longest; MAX_TARGETS],
            attestation: Some(u16::MAX),
            more: false,
        };
        assert!(encode(&table).is_ok());
    }

    #[test]
    fn an_unknown_message_or_field_is_refused() {
        for packet in [r#""exec""#, r#"{"refused":{"line":"no","also":1}}"#, "[]", ""] {
            assert!(decode::<FromGateway>(packet.as_bytes()).is_err(), "{packet}");
        }
    }
}
