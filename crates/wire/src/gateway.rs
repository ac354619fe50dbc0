//! The socket pair between the supervisor and the gateway, the program that carries every connection from outside.
//!
//! Its law: the gateway reads bytes of hosts and clients, so what it sends is hostile to the supervisor: bounded, and never more
//! than numbers, a line for the log, and the request for a socket. Packets are JSON messages of at most [`LIMIT`] bytes, one
//! each, over a `SOCK_SEQPACKET` pair whose ends init keeps: what one side sends while the other is being restarted waits for
//! the successor.
//!
//! The supervisor sends the whole [table](ToGateway::Table) when a gateway starts, when the supervisor itself has been
//! restarted, and whenever a service got another cgroup. The gateway answers each with [`FromGateway::Ready`].

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::control::IngressCounters;
use crate::frame::FrameError;
use crate::logs::MAX_NAME;

/// The gateway's name among the servants.
pub const NAME: &str = "@gateway";

/// Where the program is in ramdisk 1.
pub const PROGRAM: &str = "/sbin/gateway";

/// The descriptor number of the listener for the host's connections in the gateway.
pub const LISTENER_FD: i32 = 3;

/// The descriptor number of the gateway's end of the socket pair.
pub const CHANNEL_FD: i32 = 4;

/// The longest packet in bytes: [`MAX_TARGETS`] entries of a table fit, and Linux takes three times as much in one piece
/// (`net.core.wmem_default`, 208 KiB).
pub const LIMIT: usize = 64 * 1024;

/// The most entries of a table in one packet, each of at most [`MAX_NAME`] bytes for the service and some 120 for the rest.
pub const MAX_TARGETS: usize = 256;

/// The longest line about a refused connection, in bytes. It quotes an error of the system or of a parser.
pub const MAX_LINE: usize = 512;

/// The most connections at once, divided among the ports as the host's side divides them. That side lets more clients wait in
/// its listen queues, so the limit is met only by a host that does not.
pub const MOST_CONNECTIONS: usize = 4096;

/// Connections at once whose header has not been read yet, so that nothing says which port's room they take: a burst of
/// clients, for the moment until each header is read. More wait in the listen queue.
pub const MOST_UNREAD: usize = 256;

/// Descriptors of the gateway for everything but connections that are carried: 512 for its listeners, reactors and pipes of
/// the relay, and one for each connection whose header has not been read.
pub const RESERVED_DESCRIPTORS: usize = 512 + MOST_UNREAD;

/// The most sockets that the gateway has asked the supervisor for and not been given: each connection that finds every port
/// taken needs one, for the moment of an answer.
pub const MOST_LOANS: usize = 16;

/// What the supervisor sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToGateway {
    /// Where the ports of the manifest lead.
    Table {
        /// At most [`MAX_TARGETS`] entries.
        targets: Vec<Target>,
        /// Whether further entries follow in the next packet.
        more: bool,
    },
    /// Refuse new connections from now on, and send [`FromGateway::Empty`] when no connection is open.
    Drain,
    /// Send the counters now.
    Count,
    /// The answer to [`FromGateway::Borrow`]. One descriptor comes along, or none where `errno` says why not.
    Loaned {
        /// The request's id.
        id: u64,
        /// The system's error number.
        errno: Option<i32>,
    },
}

/// Where one port leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The port that the host names.
    pub port: u16,
    /// The TCP port of the service.
    pub target: u16,
    /// The service's name, for messages.
    pub service: String,
    /// The number of the service's cgroup ([`crate::hold::FromInit::Spawned`]); none while it does not run.
    pub cgroup: Option<u64>,
    /// Whether the service is sent a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// What the gateway sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromGateway {
    /// It serves by the table that was sent last.
    Ready,
    /// What it has carried since its start. Sent at the first change after a pause, and when asked.
    Counted(IngressCounters),
    /// A connection was refused. Sent a few times in ten seconds at most.
    Refused {
        /// A line for the log, at most [`MAX_LINE`] bytes.
        line: String,
    },
    /// No connection is open since it was told to drain.
    Empty,
    /// Make a TCP socket that is bound to a port of this machine which another program may have as well. At most
    /// [`MOST_LOANS`] at once.
    Borrow {
        /// Chosen by the gateway; the answer carries it back.
        id: u64,
        /// The address that the socket will be connected to: one of the loopback addresses.
        to: SocketAddr,
        /// Whether something will be sent at once ([`Target::proxy_protocol`], or bytes that came with the header).
        speaks: bool,
    },
}

/// A message as one packet.
///
/// # Errors
/// When it is over [`LIMIT`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > LIMIT {
        return Err(FrameError::TooLong { length: packet.len(), limit: LIMIT });
    }
    Ok(packet)
}

/// Reads a packet.
///
/// # Errors
/// When it is over [`LIMIT`], is no message of this channel, or has a part that is over its own limit.
pub fn decode<M: DeserializeOwned + Bounded>(packet: &[u8]) -> Result<M, FrameError> {
    if packet.len() > LIMIT {
        return Err(FrameError::TooLong { length: packet.len(), limit: LIMIT });
    }
    let message: M = serde_json::from_slice(packet)?;
    match message.excess() {
        Some((length, limit)) => Err(FrameError::TooLong { length, limit }),
        None => Ok(message),
    }
}

/// A message whose parts have limits of their own.
pub trait Bounded {
    /// The length and the limit of the first part that is too long.
    fn excess(&self) -> Option<(usize, usize)>;
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
    use super::*;

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
    fn what_the_supervisor_sends_has_these_bytes() {
        let table = ToGateway::Table { targets: vec![target(80, Some(7)), target(81, None)], more: false };
        has_bytes(
            &table,
            r#"{"table":{"targets":[{"port":80,"target":8080,"service":"web","cgroup":7,"proxy_protocol":false},{"port":81,"target":8080,"service":"web","cgroup":null,"proxy_protocol":false}],"more":false}}"#,
        );
        has_bytes(&ToGateway::Drain, r#""drain""#);
        has_bytes(&ToGateway::Count, r#""count""#);
        has_bytes(&ToGateway::Loaned { id: 3, errno: Some(1) }, r#"{"loaned":{"id":3,"errno":1}}"#);
    }

    #[test]
    fn what_the_gateway_sends_has_these_bytes() {
        let counters = IngressCounters { accepted: 1, open: 2, refused: 3, bytes_in: 4, bytes_out: 5 };
        has_bytes(
            &FromGateway::Counted(counters),
            r#"{"counted":{"accepted":1,"open":2,"refused":3,"bytes_in":4,"bytes_out":5}}"#,
        );
        has_bytes(&FromGateway::Ready, r#""ready""#);
        has_bytes(&FromGateway::Empty, r#""empty""#);
        has_bytes(&FromGateway::Refused { line: "no".into() }, r#"{"refused":{"line":"no"}}"#);
        let to = "127.0.0.1:8080".parse().unwrap();
        has_bytes(
            &FromGateway::Borrow { id: 3, to, speaks: true },
            r#"{"borrow":{"id":3,"to":"127.0.0.1:8080","speaks":true}}"#,
        );
    }

    #[test]
    fn a_message_over_a_limit_is_refused() {
        let line = "x".repeat(MAX_LINE + 1);
        let packet = encode(&FromGateway::Refused { line }).unwrap();
        assert!(matches!(decode::<FromGateway>(&packet), Err(FrameError::TooLong { limit: MAX_LINE, .. })));
        let targets = vec![target(80, None); MAX_TARGETS + 1];
        let packet = encode(&ToGateway::Table { targets, more: false }).unwrap();
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
        let table = ToGateway::Table { targets: vec![longest; MAX_TARGETS], more: false };
        assert!(encode(&table).is_ok());
    }

    #[test]
    fn an_unknown_message_or_field_is_refused() {
        for packet in [r#""exec""#, r#"{"refused":{"line":"no","also":1}}"#, "[]", ""] {
            assert!(decode::<FromGateway>(packet.as_bytes()).is_err(), "{packet}");
        }
    }
}
