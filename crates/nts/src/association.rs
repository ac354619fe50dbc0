//! What a client and a server share after a key exchange, and requests by it.
//!
//! Invariant: each cookie is in one request, and nothing in a request but its cookie has a meaning outside the association: the
//! header has no date of the client, no state of its clock, and a random transmit timestamp.

use crate::answer::{Answer, AnswerError, Pending};
use crate::cookie::{COOKIES, Jar};
use crate::exchange::{Agreement, NTP_PORT};
use crate::fields::{self, AUTHENTICATOR, COOKIE, HEADER, PLACEHOLDER, UNIQUE_IDENTIFIER};
use crate::header::{IDENTIFIER, PACKET_HEADER, PACKET_LIMIT, TRANSMIT};
use crate::keys::{Direction, Keys};

/// Random bytes for one request.
pub const RANDOM: usize = IDENTIFIER + TRANSMIT + NONCE;

/// Bytes of a nonce: as many as need no padding (RFC 8915, section 5.6).
const NONCE: usize = 16;

/// Of the header, what precedes the transmit timestamp: no leap second, version 4, mode 3 (client); all else is zero, so that no
/// client can be told from another one (draft-ietf-ntp-data-minimization).
const BEFORE_TRANSMIT: [u8; PACKET_HEADER - TRANSMIT] = {
    let mut header = [0; PACKET_HEADER - TRANSMIT];
    header[0] = 0b00_100_011;
    header
};

/// Bytes that the authenticator adds: its header, two lengths, the nonce, and what AES-SIV makes of nothing.
const AUTHENTICATION: usize = HEADER + 4 + NONCE + 16;

/// The keys, the unused cookies, and where to ask.
#[derive(Debug)]
pub struct Association {
    keys: Keys,
    jar: Jar,
    server: Option<String>,
    port: u16,
    /// The last request, until it is answered.
    pending: Option<Pending>,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Every cookie was used and answers that would bring new ones were lost.
    #[error("no cookie is left; a new key exchange is needed")]
    NoCookie,
    /// AES-SIV refused the packet. That is an error of this program.
    #[error("the request could not be authenticated")]
    Sealing,
}

impl Association {
    /// An association by an agreement and the keys of the connection over which it was made.
    #[must_use]
    pub fn new(keys: Keys, agreement: Agreement) -> Self {
        let Agreement { cookies, server, port } = agreement;
        Self { keys, jar: Jar::new(cookies), server, port: port.unwrap_or(NTP_PORT), pending: None }
    }

    /// The NTP server's name or address, if it is not the server of the key exchange.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The NTP server's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many requests can be made without another answer.
    #[must_use]
    pub fn cookies(&self) -> usize {
        self.jar.len()
    }

    /// A request, to be sent once. It uses up a cookie, and asks for as many as are missing. The random bytes must be new and not
    /// guessable. An answer to an earlier request is no longer accepted.
    ///
    /// # Errors
    /// If no cookie is left.
    pub fn request(&mut self, random: &[u8; RANDOM]) -> Result<Vec<u8>, RequestError> {
        let cookie = self.jar.take().ok_or(RequestError::NoCookie)?;
        let (identifier, rest) = random.split_first_chunk::<IDENTIFIER>().ok_or(RequestError::Sealing)?;
        let (transmit, nonce) = rest.split_first_chunk::<TRANSMIT>().ok_or(RequestError::Sealing)?;
        let mut packet = BEFORE_TRANSMIT.to_vec();
        packet.extend_from_slice(transmit);
        // The answer brings one cookie for the cookie itself, and one for each placeholder.
        let missing = COOKIES.saturating_sub(self.jar.len()).saturating_sub(1);
        self.fill(&mut packet, identifier, cookie.bytes(), missing, nonce).ok_or(RequestError::Sealing)?;
        self.pending = Some(Pending { identifier: *identifier, transmit: *transmit });
        Ok(packet)
    }

    /// Appends the extension fields.
    fn fill(
        &self,
        packet: &mut Vec<u8>,
        identifier: &[u8],
        cookie: &[u8],
        missing: usize,
        nonce: &[u8],
    ) -> Option<()> {
        fields::append(packet, UNIQUE_IDENTIFIER, identifier)?;
        fields::append(packet, COOKIE, cookie)?;
        // A placeholder is as long as the cookie that it asks for.
        let placeholder = vec![0; cookie.len()];
        let room = PACKET_LIMIT.checked_sub(packet.len())?.checked_sub(AUTHENTICATION)?;
        for _ in 0..missing.min(room.checked_div(HEADER.checked_add(cookie.len())?)?) {
            fields::append(packet, PLACEHOLDER, &placeholder)?;
        }
        let sealed = self.keys.key(Direction::ToServer).seal(packet, nonce, &[])?;
        fields::append(packet, AUTHENTICATOR, &fields::authenticator(nonce, &sealed)?)
    }

    /// Verifies an answer to the last request and keeps its cookies. After an error, the answer may still arrive: anyone can send
    /// packets, so the caller goes on waiting. After an answer, no other one is accepted.
    ///
    /// # Errors
    /// If it is not an authentic answer to this request, or of no use.
    pub fn accept(&mut self, packet: &[u8]) -> Result<Answer, AnswerError> {
        let pending = self.pending.as_ref().ok_or(AnswerError::Other)?;
        let (answer, cookies) = pending.verify(&self.keys, packet)?;
        self.pending = None;
        self.jar.add(cookies);
        Ok(answer)
    }
}
