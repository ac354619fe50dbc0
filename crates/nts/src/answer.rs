//! Answers: what is required of one, in the order of the checks.
//!
//! Invariant: an [`Answer`] exists only if the server sealed it for this one request. Cookies come from its encrypted fields. An
//! answer with fields after the authenticator, which anyone could have appended, is refused.

use std::fmt;
use std::time::Duration;

use crate::cookie::Cookie;
use crate::fields::{self, AUTHENTICATOR, COOKIE, INNER_MIN, OUTER_MIN, UNIQUE_IDENTIFIER};
use crate::header::{Header, IDENTIFIER, PACKET_HEADER, PACKET_LIMIT, TRANSMIT};
use crate::keys::{Direction, Keys};
use crate::timestamp::Timestamp;

/// The largest error that a server may state: with more, RFC 5905 does not synchronize with it either (`MAXDIST`, section 7.2).
const ROOT_LIMIT: Duration = Duration::from_secs(1);

/// The first stratum that means an unsynchronized server (RFC 5905, section 7.3).
const UNSYNCHRONIZED: u8 = 16;

/// The leap indicator that means the same (RFC 5905, section 7.3).
const ALARM: u8 = 3;

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) identifier: [u8; IDENTIFIER],
    pub(crate) transmit: [u8; TRANSMIT],
}

/// An authentic answer of a synchronized server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the request arrived there.
    pub received: Timestamp,
    /// When the answer was sent.
    pub transmitted: Timestamp,
    /// 1: the server has a reference clock; up to 15: so many servers are between.
    pub stratum: u8,
    /// The error of the server's clock that it states: half the delay to its reference, the dispersion, and its precision.
    pub error: Duration,
}

/// Why a packet is not the answer, or of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The packet has too few or too many bytes.
    #[error("a packet of {0} bytes is no answer; the limits are {PACKET_HEADER} and {PACKET_LIMIT}")]
    Length(usize),
    /// It is not a server's of NTPv4.
    #[error("the packet has version {version} and mode {mode}, not 4 and 4")]
    Kind {
        /// The version.
        version: u8,
        /// The mode.
        mode: u8,
    },
    /// It answers another request: an old answer, or an attempt of somebody who did not see the request.
    #[error("the packet answers another request")]
    Other,
    /// An extension field is malformed.
    #[error("the packet is malformed: {0}")]
    Malformed(&'static str),
    /// The server did not seal it, or it was changed.
    #[error("the packet is not authentic")]
    NotAuthentic,
    /// The server does not know the cookie any more, or somebody who saw the request claims so: this cannot be authenticated. If no
    /// answer follows, a new key exchange is needed (RFC 8915, section 5.7).
    #[error("the server does not accept the cookie (NTS NAK); a new key exchange is needed")]
    Nak,
    /// The server does not serve this client now. Authentic.
    #[error("the server sent the kiss code {0}")]
    Kiss(Kiss),
    /// The server's clock is not synchronized. Authentic.
    #[error("the server's clock is not synchronized (leap indicator {leap}, stratum {stratum})")]
    Unsynchronized {
        /// The leap indicator.
        leap: u8,
        /// The stratum.
        stratum: u8,
    },
    /// The server states an error above one second. Authentic.
    #[error("the server's clock may be wrong by {} ms", .0.as_millis())]
    Inexact(Duration),
}

/// A kiss code (RFC 5905, section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kiss {
    /// `RATE`: the client must ask less often.
    Rate,
    /// `DENY`: the client must not ask this server.
    Deny,
    /// `RSTR`: the same.
    Restricted,
    /// Another one.
    Other([u8; 4]),
}

impl From<[u8; 4]> for Kiss {
    fn from(code: [u8; 4]) -> Self {
        match &code {
            b"RATE" => Self::Rate,
            b"DENY" => Self::Deny,
            b"RSTR" => Self::Restricted,
            _ => Self::Other(code),
        }
    }
}

impl fmt::Display for Kiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate => f.write_str("RATE: ask less often"),
            Self::Deny => f.write_str("DENY: ask another server"),
            Self::Restricted => f.write_str("RSTR: ask another server"),
            Self::Other(code) => write!(f, "{}", code.escape_ascii()),
        }
    }
}

/// The extension fields of a packet, not yet verified.
#[derive(Debug, Default)]
struct Outer<'a> {
    identifier: Option<&'a [u8]>,
    /// The authenticator's body, and how many bytes of the packet precede the field.
    authenticator: Option<(&'a [u8], usize)>,
}

impl<'a> Outer<'a> {
    fn read(packet: &'a [u8]) -> Result<Self, AnswerError> {
        let mut outer = Self::default();
        let mut rest = packet.get(PACKET_HEADER..).unwrap_or_default();
        while !rest.is_empty() {
            let before = packet.len().saturating_sub(rest.len());
            let field = fields::first(rest, OUTER_MIN).ok_or(AnswerError::Malformed("an extension field"))?;
            rest = field.rest;
            match field.kind {
                UNIQUE_IDENTIFIER if outer.identifier.replace(field.body).is_some() => {
                    return Err(AnswerError::Malformed("two unique identifiers"));
                }
                AUTHENTICATOR if rest.is_empty() => outer.authenticator = Some((field.body, before)),
                AUTHENTICATOR => return Err(AnswerError::Malformed("fields that follow the authenticator")),
                _ => {}
            }
        }
        Ok(outer)
    }

    /// The encrypted fields, if the packet is authentic.
    fn open(&self, keys: &Keys, packet: &[u8]) -> Result<Vec<u8>, AnswerError> {
        let (body, before) = self.authenticator.ok_or(AnswerError::NotAuthentic)?;
        let (nonce, sealed) = fields::sealed(body).ok_or(AnswerError::Malformed("the authenticator"))?;
        let associated = packet.get(..before).unwrap_or_default();
        keys.key(Direction::ToClient).open(associated, nonce, sealed).ok_or(AnswerError::NotAuthentic)
    }
}

impl Pending {
    /// What the answer says, and its cookies.
    pub(crate) fn verify(&self, keys: &Keys, packet: &[u8]) -> Result<(Answer, Vec<Cookie>), AnswerError> {
        let length = AnswerError::Length(packet.len());
        if packet.len() > PACKET_LIMIT {
            return Err(length);
        }
        let header = Header::read(packet).ok_or(length)?;
        let (version, mode) = (header.version, header.mode);
        if (version, mode) != (4, 4) {
            return Err(AnswerError::Kind { version, mode });
        }
        let outer = Outer::read(packet)?;
        if header.origin != self.transmit || outer.identifier != Some(&self.identifier) {
            return Err(AnswerError::Other);
        }
        if outer.authenticator.is_none() && header.is_kiss(*b"NTSN") {
            return Err(AnswerError::Nak);
        }
        let inner = outer.open(keys, packet)?;
        Ok((answer(&header)?, cookies(&inner)?))
    }
}

/// The cookies among the encrypted fields; others are ignored.
fn cookies(inner: &[u8]) -> Result<Vec<Cookie>, AnswerError> {
    let (mut cookies, mut rest) = (Vec::new(), inner);
    while !rest.is_empty() {
        let field = fields::first(rest, INNER_MIN).ok_or(AnswerError::Malformed("an encrypted field"))?;
        rest = field.rest;
        if field.kind == COOKIE {
            cookies.push(
                Cookie::read(field.body).ok_or(AnswerError::Malformed("a cookie of an unusable length"))?,
            );
        }
    }
    Ok(cookies)
}

/// What an authentic header says.
fn answer(header: &Header) -> Result<Answer, AnswerError> {
    let (leap, stratum, error) = (header.leap, header.stratum, header.error());
    if stratum == 0 && header.reference.iter().take(1).all(u8::is_ascii_graphic) {
        return Err(AnswerError::Kiss(header.reference.into()));
    }
    // In packets, stratum 16 is 0: so does chrony, without a code.
    if leap == ALARM || stratum == 0 || stratum >= UNSYNCHRONIZED {
        return Err(AnswerError::Unsynchronized { leap, stratum });
    }
    // RFC 5905, section 6: zero means that the time is not known.
    if header.received.bits() == 0 || header.transmitted.bits() == 0 {
        return Err(AnswerError::Malformed("a timestamp of zero"));
    }
    if error > ROOT_LIMIT {
        return Err(AnswerError::Inexact(error));
    }
    Ok(Answer { received: header.received, transmitted: header.transmitted, stratum, error })
}
