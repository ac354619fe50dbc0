//! The control channel: status in, requests out.
//!
//! Its law: the enclave's supervisor may die and come back, so this connects again for as long as the machine lives. What
//! arrives is bounded and parsed; a peer that breaks the protocol is left, one of another version is reported.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::Stream;
use cloister_wire::control::{FromGuest, FromHost, Reply};
use cloister_wire::frame::{self, Decoder, HOST_LIMIT};
use cloister_wire::hello::{Hello, HelloError, Protocol, Role};
use cloister_wire::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use crate::client::Ask;
use crate::transport::Transport;

use super::life::Event;

/// The first pause between two tries to connect: a booting enclave should not wait for us.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: an enclave that is away is asked ten times a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

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
    mut stream: Stream,
    asks: &mut mpsc::Receiver<Ask>,
    events: &mpsc::Sender<Event>,
) -> io::Result<Over> {
    let mut decoder = Decoder::new(HOST_LIMIT);
    if let Err(why) = greet(&mut stream, &mut decoder, Protocol::Control).await? {
        return Ok(Over::Never(format!("the enclave cannot be talked to: {why}")));
    }
    let mut pending: HashMap<u64, oneshot::Sender<Reply>> = HashMap::new();
    let mut next_id = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        while let Some(message) = decoder.next_message::<FromGuest>().map_err(io::Error::other)? {
            match message {
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
            }
        }
        tokio::select! {
            count = stream.read(&mut buffer) => match count {
                Ok(count @ 1..) => decoder.push(buffer.get(..count).unwrap_or_default()),
                _ => return Ok(Over::Again),
            },
            ask = asks.recv() => {
                let Some(ask) = ask else { return Ok(Over::Done) };
                next_id += 1;
                send(&mut stream, ask, next_id, &mut pending).await?;
            }
        }
    }
}

async fn send(
    stream: &mut Stream,
    ask: Ask,
    id: u64,
    pending: &mut HashMap<u64, oneshot::Sender<Reply>>,
) -> io::Result<()> {
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
    let message = FromHost { id, request: ask.request };
    stream.write_all(&frame::encode(&message, HOST_LIMIT).map_err(io::Error::other)?).await
}

/// Exchanges hellos; bytes that came after the peer's stay in `decoder`.
///
/// The outer error is the connection's, the inner one the peer's version or channel.
pub(crate) async fn greet(
    stream: &mut Stream,
    decoder: &mut Decoder,
    protocol: Protocol,
) -> io::Result<Result<(), HelloError>> {
    let ours = frame::encode(&Hello::new(protocol, Role::Host), HOST_LIMIT).map_err(io::Error::other)?;
    stream.write_all(&ours).await?;
    let theirs = async {
        let mut buffer = vec![0; 4096];
        loop {
            if let Some(hello) = decoder.next_message::<Hello>().map_err(io::Error::other)? {
                return Ok(hello);
            }
            match stream.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                count => decoder.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    let hello = time::timeout(HELLO_LIMIT, theirs).await??;
    Ok(hello.check(protocol))
}
