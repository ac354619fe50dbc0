//! The control channel: status in, requests out.
//!
//! Its law: the enclave's supervisor may die and come back, so this connects again for as long as the machine lives. What
//! arrives is bounded and parsed; a peer that breaks the protocol is left, one of another version is reported.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::Stream;
use cloister_net::channel::{self, ChannelError, Limits, Receiver, Sender};
use cloister_wire::control::{FromGuest, FromHost, Reply};
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::ports;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use crate::client::Ask;
use crate::transport::Transport;

use super::life::Event;

/// The first pause between two tries to connect: a booting enclave should not wait for us.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: an enclave that is away is asked ten times a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What an enclave may cost on a channel: its supervisor says hello as soon as it is connected to, so 5 s are many times what
/// a busy machine needs, and the next try is another chance.
pub(super) const LIMITS: Limits = Limits { read: 16 * 1024, hello: Duration::from_secs(5), ..Limits::HOST };

/// Requests that wait for an answer at most. More are refused here.
const MAX_PENDING: usize = 64;

/// Why a connection is over.
enum Over {
    /// The peer went away, or broke the protocol: try again.
    Again,
    /// The peer cannot be spoken to.
    Never(String),
    /// Nobody wants it any more.
    Done,
}

/// Keeps the channel until nobody listens to `events`, or nobody can ask any more.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    mut asks: mpsc::Receiver<Ask>,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(stream) = transport.connect(ports::CONTROL).await {
            match talk(stream, &mut asks, &events).await {
                Ok(Over::Done) => return,
                Ok(Over::Never(why)) => {
                    // Whoever listened is gone: so is the reason to tell.
                    drop(events.send(Event::Broken(why)).await);
                    return;
                }
                Ok(Over::Again) => pause = FIRST_PAUSE,
                Err(_) => {}
            }
        }
        tokio::select! {
            () = time::sleep(pause) => {}
            () = events.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn talk(
    stream: Stream,
    asks: &mut mpsc::Receiver<Ask>,
    events: &mpsc::Sender<Event>,
) -> Result<Over, ChannelError> {
    let (receiver, sender) = match channel::open(stream, Protocol::Control, Role::Host, LIMITS).await {
        Err(ChannelError::Hello(why)) => {
            return Ok(Over::Never(format!("the enclave cannot be talked to: {why}")));
        }
        opened => opened?,
    };
    match converse(receiver, sender, asks, events).await {
        Err(ChannelError::Closed | ChannelError::Io(_)) => Ok(Over::Again),
        over => over,
    }
}

async fn converse(
    mut receiver: Receiver,
    mut sender: Sender,
    asks: &mut mpsc::Receiver<Ask>,
    events: &mpsc::Sender<Event>,
) -> Result<Over, ChannelError> {
    let mut pending: HashMap<u64, oneshot::Sender<Reply>> = HashMap::new();
    let mut next_id = 0;
    loop {
        tokio::select! {
            message = receiver.receive::<FromGuest>() => match message? {
                FromGuest::Status(status) => {
                    if events.send(Event::Status(Box::new(status))).await.is_err() {
                        return Ok(Over::Done);
                    }
                }
                FromGuest::Reply { id, reply } => {
                    if let Some(answer) = pending.remove(&id) {
                        // Whoever asked may have gone.
                        drop(answer.send(reply));
                    }
                }
            },
            ask = asks.recv() => {
                let Some(ask) = ask else { return Ok(Over::Done) };
                next_id += 1;
                send(&mut sender, ask, next_id, &mut pending).await?;
            }
        }
    }
}

async fn send(
    sender: &mut Sender,
    ask: Ask,
    id: u64,
    pending: &mut HashMap<u64, oneshot::Sender<Reply>>,
) -> Result<(), ChannelError> {
    pending.retain(|_, answer| !answer.is_closed());
    if let Some(answer) = ask.answer {
        if answer.is_closed() {
            // Whoever asked was told that it came to nothing, and may have asked again.
            return Ok(());
        }
        if pending.len() >= MAX_PENDING {
            drop(answer.send(Reply::Refused { why: "too many requests wait for an answer".into() }));
            return Ok(());
        }
        pending.insert(id, answer);
    }
    sender.send(&FromHost { id, request: ask.request }).await
}
