//! The key exchange: records over TLS, by which client and server agree on an algorithm and the server hands out cookies
//! (RFC 8915, section 4).
//!
//! Invariant: an agreement is on NTPv4 and `AEAD_AES_SIV_CMAC_256`, has a cookie, and was read to its last byte. What the server
//! sends is bounded, and its result does not depend on the pieces in which it arrives.

use crate::cookie::{COOKIES, Cookie};

/// The protocol that TLS negotiates.
pub const ALPN: &[u8] = b"ntske/1";

/// The port of key exchanges (RFC 8915, section 7.1).
pub const EXCHANGE_PORT: u16 = 4460;

/// The port of NTP, if the server names no other one.
pub const NTP_PORT: u16 = 123;

/// The request: NTPv4 and `AEAD_AES_SIV_CMAC_256`, and no more. All three records are critical.
pub const REQUEST: [u8; 16] = [0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0];

/// The longest body of a record in bytes. The known ones have at most 256, and a server sends others only to clients that it
/// expects to know them.
const RECORD_LIMIT: usize = 1024;

/// The longest answer in bytes: twice what eight of the longest cookies and a name take.
const MESSAGE_LIMIT: usize = 8 * 1024;

/// The longest name of a server in bytes (RFC 1035, section 2.3.4).
const NAME_LIMIT: usize = 255;

/// The identifiers of what is offered (RFC 8915, section 7.7, and RFC 5297, section 6.1).
const NTPV4: u16 = 0;
const AES_SIV_CMAC_256: u16 = 15;

/// The bit of a record's type that forbids to ignore it.
const CRITICAL: u16 = 0x8000;

/// A record's type and length.
const HEADER: usize = 4;

/// What was agreed on, besides the protocol and the algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// One to eight.
    pub cookies: Vec<Cookie>,
    /// The NTP server's name or address, without control characters or spaces; if it is missing, the server of the key exchange is
    /// also the NTP server.
    pub server: Option<String>,
    /// Its port, if that is not [`NTP_PORT`].
    pub port: Option<u16>,
}

/// An answer that is being received.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Bytes of an incomplete record.
    rest: Vec<u8>,
    /// Bytes of the records before it.
    read: usize,
    seen: Seen,
    complete: bool,
}

#[derive(Debug, Default)]
struct Seen {
    protocol: Option<u16>,
    algorithm: Option<u16>,
    cookies: Vec<Cookie>,
    server: Option<String>,
    port: Option<u16>,
}

/// Why there is no agreement. The server is not one for NTS, or is not able to serve this client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The server reports an error by this code.
    #[error("the server refused the key exchange: {}", error_name(*.0))]
    Refused(u16),
    /// The server warns by this code. None is defined, so it cannot be handled.
    #[error("the server sent the warning {0}, which is unknown")]
    Warning(u16),
    /// The server does not serve NTPv4.
    #[error("the server does not offer NTPv4")]
    Protocol,
    /// The server lacks the one algorithm that every server must have.
    #[error("the server does not offer AEAD_AES_SIV_CMAC_256")]
    Algorithm,
    /// A critical record has this unknown type.
    #[error("the server sent a critical record of the unknown type {0}")]
    UnknownCritical(u16),
    /// A record is malformed.
    #[error("the server sent a malformed record: {0}")]
    Malformed(&'static str),
    /// A record that must be there once is there twice.
    #[error("the server sent two records of the type {0}")]
    Twice(u16),
    /// There is no cookie.
    #[error("the server sent no cookie")]
    NoCookie,
    /// The answer has too many bytes.
    #[error("the server sent a record of more than {RECORD_LIMIT} bytes, or {MESSAGE_LIMIT} bytes in all")]
    TooLong,
    /// The answer ended early, or bytes follow it.
    #[error("the server's answer does not end with its last record")]
    End,
}

/// The name of an error code (RFC 8915, section 4.1.3).
const fn error_name(code: u16) -> &'static str {
    match code {
        0 => "it does not know a critical record",
        1 => "it considers the request malformed",
        2 => "it has an internal error",
        _ => "for a reason that is not known here",
    }
}

impl Exchange {
    /// Takes the next bytes; whether the answer is complete.
    ///
    /// # Errors
    /// If there can be no agreement.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, ExchangeError> {
        self.rest.extend_from_slice(bytes);
        let mut rest = self.rest.as_slice();
        while !self.complete {
            let Some((kind, length)) = header(rest) else { break };
            let end = HEADER.saturating_add(length);
            // By position, so that the error does not depend on how much has arrived.
            if length > RECORD_LIMIT || self.read.saturating_add(end) > MESSAGE_LIMIT {
                return Err(ExchangeError::TooLong);
            }
            let Some((record, after)) = rest.split_at_checked(end) else { break };
            self.complete = self.seen.record(kind, record.get(HEADER..).unwrap_or_default())?;
            self.read = self.read.saturating_add(end);
            rest = after;
        }
        if self.complete && !rest.is_empty() {
            return Err(ExchangeError::End);
        }
        self.rest = rest.to_vec();
        Ok(self.complete)
    }

    /// What was agreed on.
    ///
    /// # Errors
    /// If the answer is incomplete, or lacks a record that it must have.
    pub fn agreement(self) -> Result<Agreement, ExchangeError> {
        if !self.complete {
            return Err(ExchangeError::End);
        }
        let Seen { protocol, algorithm, cookies, server, port } = self.seen;
        protocol.ok_or(ExchangeError::Protocol)?;
        algorithm.ok_or(ExchangeError::Algorithm)?;
        if cookies.is_empty() {
            return Err(ExchangeError::NoCookie);
        }
        Ok(Agreement { cookies, server, port })
    }
}

/// Type and length of the first record.
fn header(bytes: &[u8]) -> Option<(u16, usize)> {
    let (kind, after) = bytes.split_first_chunk()?;
    let (length, _) = after.split_first_chunk()?;
    Some((u16::from_be_bytes(*kind), usize::from(u16::from_be_bytes(*length))))
}

impl Seen {
    /// Takes one record; whether it was the last.
    fn record(&mut self, kind: u16, body: &[u8]) -> Result<bool, ExchangeError> {
        let number = kind & !CRITICAL;
        match number {
            0 if body.is_empty() => return Ok(true),
            0 => return Err(ExchangeError::Malformed("an end of message with a body")),
            1 => once(&mut self.protocol, chosen(body, NTPV4).ok_or(ExchangeError::Protocol)?, number)?,
            2 => {
                return Err(
                    number_in(body).map_or(ExchangeError::Malformed("an error"), ExchangeError::Refused)
                );
            }
            3 => {
                return Err(
                    number_in(body).map_or(ExchangeError::Malformed("a warning"), ExchangeError::Warning)
                );
            }
            4 => {
                let algorithm = chosen(body, AES_SIV_CMAC_256).ok_or(ExchangeError::Algorithm)?;
                once(&mut self.algorithm, algorithm, number)?;
            }
            5 => {
                let cookie =
                    Cookie::read(body).ok_or(ExchangeError::Malformed("a cookie of an unusable length"))?;
                if self.cookies.len() < COOKIES {
                    self.cookies.push(cookie);
                }
            }
            6 => once(
                &mut self.server,
                server(body).ok_or(ExchangeError::Malformed("a server's name"))?,
                number,
            )?,
            7 => {
                let port = number_in(body).filter(|port| *port != 0);
                once(&mut self.port, port.ok_or(ExchangeError::Malformed("a port"))?, number)?;
            }
            _ if kind & CRITICAL != 0 => return Err(ExchangeError::UnknownCritical(number)),
            _ => {}
        }
        Ok(false)
    }
}

/// Stores a value that may be there once.
fn once<T>(place: &mut Option<T>, value: T, kind: u16) -> Result<(), ExchangeError> {
    if place.replace(value).is_some() { Err(ExchangeError::Twice(kind)) } else { Ok(()) }
}

/// What a server chose, if that was offered: it sends one number of the client's list, or an empty list.
fn chosen(body: &[u8], offered: u16) -> Option<u16> {
    number_in(body).filter(|number| *number == offered)
}

fn number_in(body: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(body.try_into().ok()?))
}

/// A host name or an address: letters, digits and what separates them.
fn server(body: &[u8]) -> Option<String> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_');
    let fits = (1..=NAME_LIMIT).contains(&body.len()) && body.iter().all(known);
    fits.then(|| String::from_utf8_lossy(body).into_owned())
}
