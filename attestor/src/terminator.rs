//! The socket pairs to the terminator: its questions, its clients and its requests for signatures.
//!
//! Invariant: a terminator that was taken over can get signatures of handshakes, and nothing else. What it sends ends nothing here, and
//! other tasks have their turn after each message.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::Gate;
use cloister_net::packets::{MessageError, Packets};
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{Question, Reply};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::remote::Remote;
use crate::tls::Tls;

/// Maximum number of questions that are answered at once. The terminator repeats a question each second; they wait for the same
/// certificate.
const MAX_QUESTIONS: usize = 4;

/// Pause after an invalid message, so that a terminator that was taken over cannot keep this program busy with them.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the terminator's questions, and serves the clients that it passes on, until an error occurs.
pub(crate) async fn converse(pair: Packets, tls: Arc<Tls>, remote: Arc<Remote>) -> Result<(), MessageError> {
    let (pair, asking) = (Arc::new(pair), Gate::new(MAX_QUESTIONS));
    let mut recorded = tls.module().watch_recorded();
    let mut buffer = vec![0; LIMIT];
    loop {
        let received = tokio::select! {
            received = pair.next(&mut buffer) => received,
            // Its sender is part of the module, which this function has.
            _ = recorded.changed() => {
                pair.report(&Reply::Outdated).await?;
                continue;
            }
        };
        let Some((question, mut fds)) = valid(received).await? else { continue };
        match (question, fds.pop()) {
            (Question::Certificate { id }, _) => {
                let Some(pass) = asking.try_enter() else { continue };
                let (pair, tls) = (Arc::clone(&pair), Arc::clone(&tls));
                drop(tokio::spawn(async move {
                    let _pass = pass;
                    // A terminator that is gone needs no reply.
                    drop(pair.report(&tls.reply(id).await).await);
                }));
            }
            (Question::Client, Some(socket)) => remote.admit(socket).await,
            // Only a terminator that was taken over sends no descriptor.
            (Question::Client, None) => sleep(PAUSE).await,
        }
        yield_now().await;
    }
}

/// Signs handshakes until an error occurs.
pub(crate) async fn sign(pair: Packets, tls: Arc<Tls>) -> Result<(), MessageError> {
    let mut buffer = vec![0; LIMIT];
    loop {
        if let Some((request, _)) = valid(pair.next(&mut buffer).await).await? {
            pair.report(&tls.sign(&request)).await?;
        }
        yield_now().await;
    }
}

/// A valid message; an invalid one is ignored, and so is what follows for some time. Since init keeps both ends open, an empty packet
/// is no end, and lost descriptors were too many.
async fn valid<M>(received: Result<M, MessageError>) -> Result<Option<M>, MessageError> {
    match received {
        Ok(message) => Ok(Some(message)),
        Err(MessageError::Frame(_) | MessageError::Closed) => {
            sleep(PAUSE).await;
            Ok(None)
        }
        Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            sleep(PAUSE).await;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
