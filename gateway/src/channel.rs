//! The channel to the supervisor.
//!
//! Invariant: connections never wait for the supervisor, except for a socket that only it can create. Counters are sent
//! at the first change after a [`REPORT_INTERVAL`]; if the supervisor does not read, their latest values are sent once
//! it does.

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

/// Minimum time between two reports of the counters: a status is read by humans and scrapers, and a report per
/// connection would keep the supervisor as busy as the gateway.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Why the channel failed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the socket failed")]
    Io(#[from] io::Error),
    /// The supervisor sent an invalid message.
    #[error("the supervisor sent an invalid message")]
    Frame(#[from] FrameError),
    /// Every copy of the supervisor's end is closed.
    #[error("the supervisor's end of the channel is closed")]
    Closed,
}

/// Receives messages from the supervisor and sends those from `outgoing`, until an error occurs.
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
        received = receive(&channel, ingress) => received,
        sent = sending => sent,
        counted = count(&channel, ingress) => counted,
    }
}

async fn receive(channel: &Packets, ingress: &Ingress) -> Result<(), ChannelError> {
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
                    ingress.set_table(std::mem::take(&mut table));
                    ingress.report(FromGateway::Ready).await;
                }
            }
            ToGateway::Drain => {
                ingress.drain();
                let draining = ingress.clone();
                let task = tokio::spawn(async move {
                    draining.empty().await;
                    draining.report(FromGateway::Drained).await;
                });
                // A restarted supervisor repeats its request, and gets one report.
                waiting.replace(task.abort_handle()).into_iter().for_each(|task| task.abort());
            }
            ToGateway::Count => ingress.report(FromGateway::Counters(ingress.counters())).await,
            ToGateway::Loaned { id, errno } => ingress.loaned(id, fds.pop(), errno),
        }
    }
}

async fn count(channel: &Packets, ingress: &Ingress) -> Result<(), ChannelError> {
    loop {
        ingress.changed().await;
        channel.send(&encode(&FromGateway::Counters(ingress.counters()))?).await?;
        sleep(REPORT_INTERVAL).await;
    }
}
