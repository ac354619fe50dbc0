//! Evidence from a running enclave: the address of its attestation server.
//!
//! Invariant: what the server sends is bounded in time; `cloister-client` bounds its length, and proves that the other end has the
//! key which the evidence must bind.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use cloister_client::{Answer, Deadline};

use crate::error::{Error, Result};

/// What a URL begins with.
const SCHEME: &str = "https://";

/// The port without one in the URL (RFC 9110, section 4.2.2).
const DEFAULT_PORT: u16 = 443;

/// Time limit for a connection attempt.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Time limit for everything: an enclave may take ten seconds for its certificate, and as long again for the evidence.
const TIME: Duration = Duration::from_secs(30);

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// The server that a URL names; `None` if the text is no `https` URL.
    pub(super) fn parse(text: &str) -> Option<Result<Self>> {
        let rest = text.strip_prefix(SCHEME)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, Some(DEFAULT_PORT)),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(match port {
            Some(port) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(Error::operator(format!("{text} does not name an attestation server"))
                .hint("write https://HOST:PORT, without a path")),
        })
    }

    /// Requests evidence.
    pub(super) fn fetch(&self) -> Result<Answer> {
        let what = || Error::operator(format!("cannot get evidence from {self}"));
        let end = Instant::now() + TIME;
        let socket = self.connect(end).map_err(|error| what().because(error))?;
        // The end of the handshake and the request are two writes: with Nagle's algorithm the second waits for the acknowledgement of
        // the first, which the other end delays.
        socket.set_nodelay(true).map_err(|error| what().because(error))?;
        let asked = Answer::request(Deadline::new(socket, end), &self.host, self.port);
        asked.map_err(|error| {
            what()
                .because(error)
                .hint("check that its manifest has `attestation: {port: …}` and that this port is published")
        })
    }

    /// A connection to the first of its addresses that accepts one, until `end`.
    fn connect(&self, end: Instant) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in self.resolve(end)? {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left.min(CONNECT_TIME)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Its addresses. The system's resolver has no time limit that can be set, so it is waited for in a thread, which is left behind
    /// if it takes longer.
    fn resolve(&self, end: Instant) -> io::Result<Vec<SocketAddr>> {
        let (sender, resolved) = mpsc::channel();
        let (host, port) = (self.host.clone(), self.port);
        thread::Builder::new().spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more.
            drop(sender.send(found));
        })?;
        let left = end.saturating_duration_since(Instant::now());
        resolved.recv_timeout(left).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let parsed =
            |text: &str| Url::parse(text).unwrap().map(|url| (url.host, url.port)).map_err(|e| e.to_string());
        assert_eq!(parsed("https://enclave.example:8443"), Ok(("enclave.example".into(), 8443)));
        assert_eq!(parsed("https://enclave.example/"), Ok(("enclave.example".into(), 443)));
        assert_eq!(parsed("https://[::1]:8443"), Ok(("::1".into(), 8443)));
        assert_eq!(parsed("https://[::1]"), Ok(("::1".into(), 443)));
        for text in [
            "https://",
            "https://:1",
            "https://host:0x1",
            "https://host/path",
            "https://user@host",
            "https://host:99999",
        ] {
            assert!(parsed(text).unwrap_err().ends_with("does not name an attestation server"), "{text}");
        }
        assert!(Url::parse("evidence.cose").is_none());
    }
}
