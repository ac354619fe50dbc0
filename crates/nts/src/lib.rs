//! A client of Network Time Security (RFC 8915): the date from a server that proves who it is, over NTPv4 (RFC 5905) with
//! extension fields (RFC 7822).
//!
//! Invariant: bytes in, bytes out. There is no I/O, no clock and no randomness here: random bytes and readings of the clock are
//! passed in. Everything from the network is hostile: it is parsed to its last byte or refused, every size has a limit, and nothing
//! of an answer is used before it is authenticated, but for the one kiss that cannot be ([`AnswerError::Nak`]).
//!
//! ```text
//! TLS 1.3, ALPN ntske/1 (the caller's)          UDP (the caller's)
//! REQUEST ────────────────▶                     Association::request ──▶
//! Exchange::push ◀─────────                     Association::accept ◀──── Answer ──▶ Reading
//! Keys::export, Association::new                until no cookie is left, or a Nak: exchange again
//! ```
//!
//! One algorithm is offered, `AEAD_AES_SIV_CMAC_256`, which every server must have. What a server states about its own error is
//! believed: the client knows who it is, not whether it is right. The feature `client` adds I/O with a deadline for everything.
#![forbid(unsafe_code)]

mod answer;
mod association;
#[cfg(feature = "client")]
pub mod client;
mod cookie;
mod exchange;
mod fields;
mod header;
mod keys;
mod reading;
#[cfg(test)]
mod tests;
mod timestamp;

pub use answer::{Answer, AnswerError, Kiss};
pub use association::{Association, RANDOM, RequestError};
pub use cookie::{COOKIE_LIMIT, COOKIES, Cookie};
pub use exchange::{ALPN, Agreement, EXCHANGE_PORT, Exchange, ExchangeError, NTP_PORT, REQUEST};
pub use header::PACKET_LIMIT;
pub use keys::{Direction, EXPORTER_LABEL, KEY, Key, Keys};
pub use reading::{Reading, ReadingError};
pub use timestamp::Timestamp;
