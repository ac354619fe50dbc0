//! What other `host-sleeve` commands ask of a sleeve, over `sleeve.sock`.
//!
//! Its law: only the enclave's own user can reach it, since the folder is that user's alone; still everything is bounded,
//! and a client that hangs holds up nobody. A client that keeps its connection learns of the sleeve's end by its closing.

use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Limits};
use cloister_net::{Entrance, Gate, Listener, Stream, accept_each, within};
use cloister_wire::control::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::client::{Ask, Asked, Envelope, SOCKET, VERSION};
use crate::error::{Doing, Result};
use crate::state::Folder;

use super::life::Event;

/// Clients at once; a follower of the logs is one.
const MAX_CLIENTS: usize = 256;

/// How long the enclave may take to answer a request that was passed on.
const GUEST_LIMIT: Duration = Duration::from_secs(15);

/// What a sleeve needs to serve.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    /// To the sleeve's life.
    pub(crate) events: mpsc::Sender<Event>,
    /// To the enclave.
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// Where clients of the sleeve of `folder` connect.
pub(crate) fn listen(folder: &Folder) -> Result<Listener> {
    let doing = || format!("cannot listen at {}", folder.file(SOCKET).display());
    let listener = StdListener::bind(folder.socket(SOCKET)).and_then(Listener::from_unix);
    listener.doing(doing).map_err(|error| {
        error.hint("CLOISTER_STATE_DIR names another folder: on a file system that can hold sockets, such as a local disk's")
    })
}

/// Serves clients until it is dropped.
pub(crate) async fn serve(listener: Listener, doors: Doors) {
    let handle = move |stream, _| {
        let doors = doors.clone();
        async move {
            // A client that breaks off has what it wanted, or has only itself to blame.
            drop(client(stream, doors).await);
        }
    };
    accept_each(Entrance::anyone(listener), Gate::new(MAX_CLIENTS), handle).await;
}

async fn client(stream: Stream, doors: Doors) -> Result<Infallible, ChannelError> {
    let (mut receiver, mut sender) = channel::without_hello(stream, Limits::HOST);
    loop {
        let reply = answer(receiver.receive().await?, &doors).await;
        sender.send(&reply).await?;
    }
}

async fn answer(envelope: Envelope, doors: &Doors) -> Reply {
    if envelope.version != VERSION {
        let why = format!("this sleeve speaks version {VERSION}, not {}", envelope.version);
        return Reply::Refused { why };
    }
    let event = match envelope.ask {
        Asked::Enclave(request) => return pass_on(request, doors).await,
        Asked::Stop { grace_ms } => {
            Event::Stop { why: "stopped".to_owned(), grace: grace_ms.map(Duration::from_millis) }
        }
        Asked::Kill => Event::Kill { why: "killed on request".to_owned() },
    };
    match doors.events.send(event).await {
        Ok(()) => Reply::Done,
        Err(_) => Reply::Refused { why: "the enclave is ending".to_owned() },
    }
}

async fn pass_on(request: Request, doors: &Doors) -> Reply {
    let refused = |why: &str| Reply::Refused { why: why.to_owned() };
    let (answer, reply) = oneshot::channel();
    let ask = Ask { request, answer: Some(answer) };
    let passed = async {
        doors.asks.send(ask).await.ok()?;
        reply.await.ok()
    };
    match within(GUEST_LIMIT, "the enclave's answer", passed).await {
        Ok(Some(reply)) => reply,
        Ok(None) => refused("the enclave went away before it answered"),
        Err(_) => refused("the enclave did not answer in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_version_is_refused_by_number() {
        let (events, _life) = mpsc::channel(1);
        let (asks, _enclave) = mpsc::channel(1);
        let reply = answer(Envelope { version: 9, ask: Asked::Kill }, &Doors { events, asks }).await;
        assert_eq!(reply, Reply::Refused { why: "this sleeve speaks version 1, not 9".into() });
    }

    #[tokio::test]
    async fn a_request_to_an_enclave_that_went_away_is_refused() {
        let (events, _life) = mpsc::channel(1);
        let (asks, enclave) = mpsc::channel(1);
        drop(enclave);
        let reply = pass_on(Request::Ping, &Doors { events, asks }).await;
        assert!(matches!(reply, Reply::Refused { .. }));
    }
}
