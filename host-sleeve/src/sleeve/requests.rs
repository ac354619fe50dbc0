//! Serves the requests of other `host-sleeve` commands, over `sleeve.sock`.
//!
//! Invariant: only the enclave's own user can connect, because no other user can access the directory; even so everything
//! is bounded, and a client that hangs delays no other. When the sleeve exits, open connections are closed, so that
//! clients notice.

use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Limits};
use cloister_net::{Entrance, Gate, Listener, Stream, accept_each, within};
use cloister_relay::Works;
use cloister_wire::control::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::client::{EnclaveRequest, Envelope, SOCKET, SleeveRequest, VERSION};
use crate::error::{ErrorContext, Result};
use crate::ingress;
use crate::state::EnclaveDir;
use crate::transport::Transport;

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
    /// To the enclave's ports, once its machine exists.
    pub(crate) transport: Arc<OnceLock<Arc<dyn Transport>>>,
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
        let envelope: Envelope = receiver.receive().await?;
        if let Envelope { version: VERSION, ask: SleeveRequest::Connect { port } } = envelope {
            match connect(&channels).await {
                Ok(enclave) => {
                    sender.send(&Reply::Done).await?;
                    let local = receiver.into_stream(sender).ok_or(ChannelError::Closed)?;
                    // A connection that cannot be carried is closed: it has no way to report a reason.
                    drop(ingress::carry(&enclave, port, &local, None, &Works::new()).await);
                    return Err(ChannelError::Closed);
                }
                Err(why) => sender.send(&Reply::Refused { why }).await?,
            }
            continue;
        }
        let reply = answer(envelope, &channels).await;
        sender.send(&reply).await?;
    }
}

/// A connection to the enclave's ingress.
async fn connect(channels: &Channels) -> std::result::Result<Stream, String> {
    let transport = channels.transport.get().ok_or("the machine does not run yet")?;
    ingress::connect(&**transport).await.map_err(|error| format!("the enclave cannot be reached: {error}"))
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
        SleeveRequest::Connect { .. } => {
            return Reply::Refused { why: "a connection is no request to the enclave".to_owned() };
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
    use std::io;
    use std::sync::Mutex;

    use cloister_wire::ports;

    use super::*;
    use crate::transport::Pending;

    fn channels(events: mpsc::Sender<Event>, requests: mpsc::Sender<EnclaveRequest>) -> Channels {
        Channels { events, requests, transport: Arc::default() }
    }

    /// An enclave that keeps the other end of its only connection.
    #[derive(Debug)]
    struct Enclave(Mutex<Option<Stream>>);

    impl Transport for Enclave {
        fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
            assert_eq!(port, ports::INGRESS);
            Box::pin(async { self.0.lock().unwrap().take().ok_or(io::ErrorKind::TimedOut.into()) })
        }
    }

    #[tokio::test]
    async fn a_connection_leads_to_the_requested_port_after_the_reply() {
        let (outer, inside) = Stream::pair().unwrap();
        let inside = Stream::local(inside).unwrap();
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, _enclave) = mpsc::channel(1);
        let transport: Arc<dyn Transport> = Arc::new(Enclave(Mutex::new(Some(outer))));
        let channels =
            Channels { transport: Arc::new(OnceLock::from(transport)), ..channels(events, requests) };
        let (sleeve, client_end) = Stream::pair().unwrap();
        let serving = tokio::spawn(client(sleeve, channels));
        let stream = Stream::local(client_end).unwrap();
        let (mut receiver, mut sender) = channel::without_hello(stream, Limits::HOST);
        let ask = SleeveRequest::Connect { port: 81 };
        sender.send(&Envelope { version: VERSION, ask }).await.unwrap();
        assert_eq!(receiver.receive::<Reply>().await.unwrap(), Reply::Done);
        let stream = receiver.into_stream(sender).unwrap();
        stream.send_all(b"a request").await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"a request") {
            bytes.extend(inside.recv_some(1024).await.unwrap());
        }
        assert!(String::from_utf8_lossy(&bytes).contains(r#""port":81"#));
        drop(stream);
        drop(inside);
        assert!(serving.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_connection_before_the_machine_runs_is_refused() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, _enclave) = mpsc::channel(1);
        let why = connect(&channels(events, requests)).await.unwrap_err();
        assert_eq!(why, "the machine does not run yet");
    }

    #[tokio::test]
    async fn a_request_of_another_protocol_version_is_refused_with_both_numbers() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, _enclave) = mpsc::channel(1);
        let reply =
            answer(Envelope { version: 9, ask: SleeveRequest::Kill }, &channels(events, requests)).await;
        assert_eq!(reply, Reply::Refused { why: "this sleeve supports protocol version 1, not 9".into() });
    }

    #[tokio::test]
    async fn a_request_to_an_enclave_that_is_gone_is_refused() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, enclave) = mpsc::channel(1);
        drop(enclave);
        let reply = forward(Request::Ping, &channels(events, requests)).await;
        assert!(matches!(reply, Reply::Refused { .. }));
    }
}
