//! A blocking client: the key exchange over TCP and TLS, and requests over UDP.
//!
//! Invariant: each function returns by its deadline, and resolves no names, which could not be limited in time. TLS is version 1.3,
//! without resumed sessions, and the exchange begins only after the server has agreed to `ntske/1`.
//!
//! The server's certificate is checked at a date that the caller provides. If that is the date that is to be corrected, the party that
//! states it can make an expired certificate appear valid.

mod deadline;
mod tls;
mod udp;

use std::io;
use std::time::Duration;

pub use tls::{config, exchange};
pub use udp::query;

use crate::{AnswerError, ExchangeError, ReadingError, RequestError};

/// Why there is no association or no reading.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system reports an error of the network.
    #[error("no connection to the server: {0}")]
    Network(#[source] io::Error),
    /// The time is over. The last packet was refused for this reason, if there was any.
    #[error("no answer within {} ms{}", .0.as_millis(), last(.1.as_ref()))]
    Deadline(Duration, Option<AnswerError>),
    /// The server is not the required one, or speaks no TLS 1.3.
    #[error("TLS failed: {0}")]
    Tls(#[source] rustls::Error),
    /// The server does not speak the protocol of key exchanges.
    #[error("the server does not offer ntske/1, so it is no NTS server")]
    NoNts,
    /// The key exchange failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// There is no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The answer is authentic and of no use, or there is none but a NAK.
    #[error(transparent)]
    Answer(AnswerError),
    /// The answer's dates are of no use.
    #[error(transparent)]
    Reading(#[from] ReadingError),
    /// The system has no random bytes.
    #[error("there are no random bytes for a request")]
    Random,
}

fn last(refusal: Option<&AnswerError>) -> String {
    refusal.map_or_else(String::new, |refusal| format!("; the last packet was refused: {refusal}"))
}
