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
use cloister_net::{Entrance, Gate, Listener, Permit, Stream, accept_each, within};
use cloister_relay::Works;
use cloister_wire::control::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::client::{EnclaveRequest, Envelope, SOCKET, SleeveRequest, VERSION};
use crate::error::{ErrorContext, Result};
use crate::ingress;
use crate::state::EnclaveDir;
use crate::transport::Transport;

use super::lifecycle::Event;

/// Maximum number of concurrent clients; each `logs --follow` is one, and each connection to a port.
const MAX_CLIENTS: usize = 256;

/// Maximum number of connections to ports among them: the rest is for commands.
const MAX_CONNECTIONS: usize = 128;

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
    /// Its ports.
    ports: Arc<[u16]>,
    connections: Gate,
}

impl Channels {
    /// The channels of an enclave with these ports. Its transport is set when its machine exists.
    pub(crate) fn new(
        events: mpsc::Sender<Event>,
        requests: mpsc::Sender<EnclaveRequest>,
        ports: Vec<u16>,
    ) -> Self {
        let connections = Gate::new(MAX_CONNECTIONS);
        Self { events, requests, transport: Arc::default(), ports: ports.into(), connections }
    }
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
        let reply = match of_this_version(envelope) {
            Err(why) => Reply::Refused { why },
            Ok(SleeveRequest::Connect { port }) => match connect(port, &channels).await {
                Ok((enclave, place)) => {
                    sender.send(&Reply::Done).await?;
                    let local = receiver.into_stream(sender).ok_or(ChannelError::Closed)?;
                    // A connection that cannot be carried is closed: it has no way to report a reason.
                    drop(ingress::carry(&enclave, port, &local, None, &Works::new()).await);
                    drop(place);
                    return Err(ChannelError::Closed);
                }
                Err(why) => Reply::Refused { why },
            },
            Ok(SleeveRequest::Enclave(request)) => forward(request, &channels).await,
            Ok(SleeveRequest::Stop { grace_ms }) => {
                let grace = grace_ms.map(Duration::from_millis);
                report(Event::Stop { why: "stopped".to_owned(), grace }, &channels).await
            }
            Ok(SleeveRequest::Kill) => {
                report(Event::Kill { why: "killed on request".to_owned() }, &channels).await
            }
        };
        sender.send(&reply).await?;
    }
}

/// A connection to the enclave's ingress, and its place.
async fn connect(port: u16, channels: &Channels) -> std::result::Result<(Stream, Permit), String> {
    if !channels.ports.contains(&port) {
        let ports: Vec<_> = channels.ports.iter().map(u16::to_string).collect();
        return Err(match ports.as_slice() {
            [] => "its manifest has no ingress port".to_owned(),
            ports => format!("its manifest has no ingress port {port}; it has {}", ports.join(", ")),
        });
    }
    let place = channels.connections.try_enter();
    let place = place.ok_or_else(|| format!("{MAX_CONNECTIONS} connections are open; close one of them"))?;
    let transport = channels.transport.get().ok_or("the machine does not run yet")?;
    let enclave = ingress::connect(&**transport).await;
    Ok((enclave.map_err(|error| format!("the enclave cannot be reached: {error}"))?, place))
}

/// The request, if it is of this version of the protocol.
fn of_this_version(envelope: Envelope) -> std::result::Result<SleeveRequest, String> {
    if envelope.version == VERSION {
        return Ok(envelope.ask);
    }
    Err(format!("this sleeve supports protocol version {VERSION}, not {}", envelope.version))
}

async fn report(event: Event, channels: &Channels) -> Reply {
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
        Channels::new(events, requests, vec![80, 81])
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
        let channels = channels(events, requests);
        drop(channels.transport.set(transport));
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
        let channels = channels(events, requests);
        assert_eq!(connect(80, &channels).await.unwrap_err(), "the machine does not run yet");
    }

    #[tokio::test]
    async fn a_port_that_is_not_in_the_manifest_and_too_many_connections_are_refused() {
        let (events, _lifecycle) = mpsc::channel(1);
        let (requests, _enclave) = mpsc::channel(1);
        let channels = channels(events, requests);
        let why = connect(82, &channels).await.unwrap_err();
        assert_eq!(why, "its manifest has no ingress port 82; it has 80, 81");
        let places: Vec<_> =
            (0..MAX_CONNECTIONS).map(|_| channels.connections.try_enter().unwrap()).collect();
        assert!(connect(80, &channels).await.unwrap_err().starts_with("128 connections are open"));
        drop(places);
    }

    #[test]
    fn a_request_of_another_protocol_version_is_refused_with_both_numbers() {
        let why = of_this_version(Envelope { version: 9, ask: SleeveRequest::Kill }).unwrap_err();
        assert_eq!(why, "this sleeve supports protocol version 1, not 9");
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
