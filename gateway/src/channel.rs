//! The conversation with the supervisor.
//!
//! Its law: nothing that a connection does waits for the supervisor, but for a socket that only it can make. Counters are sent at
//! the first change after a [`PACE`], and what cannot be sent because nobody reads is sent in its newest form when somebody does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::packets::Packets;
use cloister_wire::frame::FrameError;
use cloister_wire::gateway::{FromGateway, LIMIT, Target, ToGateway, decode, encode};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::ingress::Ingress;

/// The shortest time between two reports of the counters: a status is read by people and scrapers, and one report a connection
/// would keep the supervisor as busy as the gateway.
const PACE: Duration = Duration::from_millis(100);

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the socket failed")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("the supervisor sent what is no message")]
    Frame(#[from] FrameError),
    /// Every copy of the supervisor's end is closed.
    #[error("the supervisor's end is closed")]
    Closed,
}

/// Hears the supervisor and sends what `outgoing` brings, until one of the two fails.
pub(crate) async fn converse(
    channel: Arc<Packets>,
    ingress: &Ingress,
    mut outgoing: mpsc::Receiver<FromGateway>,
) -> Result<(), ChannelError> {
    let sending = async {
        while let Some(message) = outgoing.recv().await {
            channel.send(&encode(&message)?).await?;
        }
        Ok(())
    };
    tokio::select! {
        heard = hear(&channel, ingress) => heard,
        sent = sending => sent,
        counted = count(&channel, ingress) => counted,
    }
}

async fn hear(channel: &Packets, ingress: &Ingress) -> Result<(), ChannelError> {
    let mut buffer = vec![0; LIMIT];
    let mut table: Vec<Target> = Vec::new();
    let mut waiting: Option<AbortHandle> = None;
    loop {
        let (count, mut fds) = channel.recv(&mut buffer).await?;
        if count == 0 {
            return Err(ChannelError::Closed);
        }
        match decode(buffer.get(..count).unwrap_or_default())? {
            ToGateway::Table { targets, more } => {
                table.extend(targets);
                if !more {
                    ingress.learn(std::mem::take(&mut table));
                    ingress.tell(FromGateway::Ready).await;
                }
            }
            ToGateway::Drain => {
                ingress.drain();
                let asked = ingress.clone();
                let task = tokio::spawn(async move {
                    asked.empty().await;
                    asked.tell(FromGateway::Drained).await;
                });
                // A supervisor that was restarted asks again, and is told once.
                waiting.replace(task.abort_handle()).into_iter().for_each(|task| task.abort());
            }
            ToGateway::Count => ingress.tell(FromGateway::Counters(ingress.counters())).await,
            ToGateway::Loaned { id, errno } => ingress.loaned(id, fds.pop(), errno),
        }
    }
}

async fn count(channel: &Packets, ingress: &Ingress) -> Result<(), ChannelError> {
    loop {
        ingress.changed().await;
        channel.send(&encode(&FromGateway::Counters(ingress.counters()))?).await?;
        sleep(PACE).await;
    }
}
