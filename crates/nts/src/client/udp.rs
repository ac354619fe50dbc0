//! Requests.
//!
//! Invariant: packets that are not the authentic answer change nothing, and do not end the wait for it. A report that the port is
//! closed (ICMP) does.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use cloister_clock::{Date, Offset};
use rustls::crypto::ring;

use super::ClientError;
use super::deadline::{Deadline, is_expired};
use crate::{Answer, AnswerError, Association, PACKET_LIMIT, RANDOM, Reading};

/// Asks the server at `address` once, within `limit`. `clock` reads the clock whose offset is wanted, once: the rest of the round trip
/// is measured by the monotonic clock, so that the result is right even if the clock is set meanwhile.
///
/// # Errors
/// If no cookie is left, no authentic answer arrives, or it is of no use. A cookie is used up in any case.
pub fn query(
    association: &mut Association,
    address: SocketAddr,
    limit: Duration,
    clock: impl FnOnce() -> Date,
) -> Result<(Answer, Reading), ClientError> {
    let mut random = [0; RANDOM];
    ring::default_provider().secure_random.fill(&mut random).map_err(|_| ClientError::Random)?;
    let request = association.request(&random)?;
    let socket = connect(address).map_err(ClientError::Network)?;
    // In this order, a pause between both makes the round trip longer, and the bound with it.
    let start = Instant::now();
    let sent = clock();
    let answer = send_and_wait(association, &socket, &request, limit)?;
    let elapsed = i64::try_from(start.elapsed().as_nanos()).unwrap_or(i64::MAX);
    Ok((answer, answer.reading(sent, sent.plus(Offset::from_nanos(elapsed)))?))
}

/// A socket that receives packets from this address only.
fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

fn send_and_wait(
    association: &mut Association,
    socket: &UdpSocket,
    request: &[u8],
    limit: Duration,
) -> Result<Answer, ClientError> {
    let deadline = Deadline::after(limit);
    let mut refused = None;
    socket.send(request).map_err(ClientError::Network)?;
    // One more byte than is accepted shows that a packet is longer.
    let mut packet = [0; PACKET_LIMIT + 1];
    loop {
        let received = deadline.left().and_then(|left| {
            socket.set_read_timeout(Some(left))?;
            socket.recv(&mut packet)
        });
        let length = match received {
            Ok(length) => length,
            Err(error) if is_expired(&error) => return Err(unanswered(limit, refused)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::Network(error)),
        };
        match association.accept(packet.get(..length).unwrap_or_default()) {
            Ok(answer) => return Ok(answer),
            Err(
                authentic @ (AnswerError::Kiss(_)
                | AnswerError::Unsynchronized { .. }
                | AnswerError::Inexact(_)),
            ) => return Err(ClientError::Answer(authentic)),
            // What follows does not hide that a new key exchange is needed.
            Err(_) if refused == Some(AnswerError::Nak) => {}
            Err(other) => refused = Some(other),
        }
    }
}

/// The error for an answer that did not arrive in time. A NAK counts from then on: until then, it may be forged.
const fn unanswered(limit: Duration, refused: Option<AnswerError>) -> ClientError {
    match refused {
        Some(AnswerError::Nak) => ClientError::Answer(AnswerError::Nak),
        refused => ClientError::Deadline(limit, refused),
    }
}
