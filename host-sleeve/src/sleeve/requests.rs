//! Serves the requests of other `host-sleeve` commands, over `sleeve.sock`.
//!
//! Invariant: only the enclave's own user can connect, because no other user can access the directory; even so everything
//! is bounded, and a client that hangs delays no other. When the sleeve exits, open connections are closed, so that
//! clients notice.

use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Limits};
use cloister_net::{Entrance, Gate, Listener, Stream, accept_each, within};
use cloister_wire::control::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::client::{EnclaveRequest, Envelope, SOCKET, SleeveRequest, VERSION};
use crate::error::{ErrorContext, Result};
use crate::state::EnclaveDir;

use super::lifecycle::Event;

/// Maximum number of concurrent clients; each `logs --follow` is one.
const MAX_CLIENTS: usize = 256;

/// How long the enclave may take to reply to a forwarded request.
const GUEST_LIMIT: Duration = Duration::from_secs(15);

/// The channels over which requests are passed on.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    /// To the sleeve's lifecycle.
    pub(crate) events: mpsc::Sender<Event>,
    /// To the enclave.
    pub(crate) requests: mpsc::Sender<EnclaveRequest>,
}

/// The listener for clients of the sleeve of `directory`.
pub(crate) fn listen(directory: &EnclaveDir) -> Result<Listener> {
    let context = || format!("cannot listen at {}", directory.file(SOCKET).display());
    let listener = StdListener::bind(directory.socket(SOCKET)).and_then(Listener::from_unix);
    listener.context(context).map_err(|error| {
        error.hint("set CLOISTER_STATE_DIR to a directory on a file system that supports sockets, such as a local disk")
    })
}

/// Serves clients until it is dropped.
pub(crate) async fn serve(listener: Listener, channels: Channels) {
    let handle = move |stream, _| {
        let channels = channels.clone();
        async move {
            // A client that closes its connection needs no further reply.
            drop(client(stream, channels).await);
        }
    };
    accept_each(Entrance::anyone(listener), Gate::new(MAX_CLIENTS), handle).await;
}

async fn client(stream: Stream, channels: Channels) -> Result<Infallible, ChannelError> {
    let (mut receiver, mut sender) = channel::without_hello(stream, Limits::HOST);
    loop {
        let reply = answer(receiver.receive().await?, &channels).await;
        sender.send(&reply).await?;
    }
}

async fn answer(envelope: Envelope, channels: &Channels) -> Reply {
    if envelope.version != VERSION {
        let why = format!("this sleeve supports protocol version {VERSION}, not {}", envelope.version);
        return Reply::Refused { why };
    }
    let event = match envelope.ask {
        SleeveRequest::Enclave(request) => return forward(request, channels).await,
        SleeveRequest::Stop { grace_ms } => {
            Event::Stop { why: "stopped".to_owned(), grace: grace_ms.map(Duration::from_millis) }
        }
        SleeveRequest::Kill => Event::Kill { why: "killed on request".to_owned() },
    };
    match channels.events.send(event).await {
        Ok(()) => Reply::Done,
        Err(_) => Reply::Refused { why: "the enclave is shutting down".to_owned() },
    }
}

async fn forward(request: Request, channels: &Channels) -> Reply {
    let refused = |why: &str| Reply::Refused { why: why.to_owned() };
    let (answer, reply) = oneshot::channel();
    let request = EnclaveRequest { request, answer: Some(answer) };
    let forwarded = async {
        channels.requests.send(request).await.ok()?;
        reply.await.ok()
    };
    match within(GUEST_LIMIT, "the enclave's reply", forwarded).await {
        Ok(Some(reply)) => reply,
        Ok(None) => refused("the enclave closed the connection before it replied"),
        Err(_) => refused("the enclave did not reply in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_of_another_protocol_version_is_refused_with_both_numbers() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, _enclave) = mpsc::channel(1);
        let reply =
            answer(Envelope { version: 9, ask: SleeveRequest::Kill }, &Channels { events, requests }).await;
        assert_eq!(reply, Reply::Refused { why: "this sleeve supports protocol version 1, not 9".into() });
    }

    #[tokio::test]
    async fn a_request_to_an_enclave_that_is_gone_is_refused() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, enclave) = mpsc::channel(1);
        drop(enclave);
        let reply = forward(Request::Ping, &Channels { events, requests }).await;
        assert!(matches!(reply, Reply::Refused { .. }));
    }
}
