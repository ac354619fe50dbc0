//! Port 17000 and the local control socket.
//!
//! Invariant: the client's identity decides whether a request is allowed. The host may perform only the operations on
//! single services that the measured manifest lists; inside, only the services it lists may start, stop and signal
//! services.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cloister_manifest::model::{Control, ControlVerb, MAX_SERVICES};
use cloister_net::channel::{self, ChannelError, Sender};
use cloister_net::places::{Limits, Places};
use cloister_net::{Entrance, Identity, Stream, accept_each};
use cloister_wire::control::{self, FromGuest, FromHost, Reply, Request, Status, Verb};
use cloister_wire::hello::{Protocol, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::board::Board;
use crate::permission::may_control;

/// Concurrent connections. Host: a sleeve, its `ps` and `stop`, a scraper, and a few more in case some hang. Service:
/// an `initctl wait` or two, and other requests.
const CONNECTIONS: Limits = Limits { host: 16, service: 4, shared: 16 };

/// Minimum time between two statuses on one connection: a service that changes its text a thousand times a second
/// does not fill the host's socket, and the final state is delayed by at most this time.
const STATUS_INTERVAL: Duration = Duration::from_millis(5);

/// A status has space for the maximum number of services.
const _: () = assert!(MAX_SERVICES <= control::MAX_SERVICES, "readers refuse a status of more services");

/// The id of the refusal of a peer that is not allowed to send requests: it is sent before a request is read.
const NO_REQUEST: u64 = 0;

/// An allowed request that waits for its turn.
#[derive(Debug)]
pub struct PendingRequest {
    /// The request.
    pub request: Request,
    /// The client.
    pub peer: Identity,
    /// The channel for the reply.
    pub reply: oneshot::Sender<Reply>,
}

/// Shared by all connections.
#[derive(Clone, Debug)]
pub struct Context {
    /// The status.
    pub board: Arc<Board>,
    /// The operations that the manifest allows, once it has been read.
    pub control: watch::Receiver<Control>,
    /// The queue of allowed requests.
    pub requests: mpsc::Sender<PendingRequest>,
    /// Notified each time a status has been sent to a host.
    pub status_sent: mpsc::Sender<()>,
}

/// Serves connections forever.
pub async fn serve(entrance: Entrance, context: Context) -> Infallible {
    let handle = move |stream, peer| {
        let context = context.clone();
        async move {
            // If the connection failed, the client is gone, and there is no one to report it to.
            converse(stream, peer, context).await.unwrap_or_default();
        }
    };
    accept_each(entrance, Places::new(CONNECTIONS), handle).await
}

async fn converse(stream: Stream, peer: Identity, context: Context) -> Result<(), ChannelError> {
    let allowed = may_control(&peer, &context.control.borrow().services);
    let (mut receiver, mut sender) =
        channel::open(stream, Protocol::Control, Role::Guest, channel::Limits::HOST).await?;
    if let Err(why) = allowed {
        return sender.send(&FromGuest::Reply { id: NO_REQUEST, reply: Reply::Refused { why } }).await;
    }
    let mut changes = context.board.changes();
    changes.mark_changed();
    let mut quiet_until = Instant::now();
    loop {
        let next_change = async {
            sleep_until(quiet_until).await;
            changes.changed().await
        };
        tokio::select! {
            result = next_change => {
                quiet_until = Instant::now() + STATUS_INTERVAL;
                result.map_err(|_| ChannelError::Closed)?;
                send_status(&mut sender, context.board.read()).await?;
                if peer == Identity::Host {
                    // If the queue is full, a notification is pending already.
                    context.status_sent.try_send(()).unwrap_or_default();
                }
            }
            request = receiver.receive::<FromHost>() => {
                let FromHost { id, request } = request?;
                let reply = reply(request, &peer, &context).await;
                sender.send(&FromGuest::Reply { id, reply }).await?;
            }
        }
    }
}

/// Sends a status, in as many frames as it needs.
async fn send_status(sender: &mut Sender, status: Status) -> Result<(), ChannelError> {
    for frame in control::frames(status)? {
        sender.send_encoded(&frame).await?;
    }
    Ok(())
}

async fn reply(request: Request, peer: &Identity, context: &Context) -> Reply {
    let allowed = check(&request, peer, &context.control.borrow());
    if let Err(why) = allowed {
        return Reply::Refused { why };
    }
    let (reply, replied) = oneshot::channel();
    let refused = || Reply::Refused { why: "the enclave is stopping".into() };
    match context.requests.send(PendingRequest { request, peer: peer.clone(), reply }).await {
        Ok(()) => replied.await.unwrap_or_else(|_| refused()),
        Err(_) => refused(),
    }
}

/// Whether this peer is allowed to send this request.
fn check(request: &Request, peer: &Identity, control: &Control) -> Result<(), String> {
    let verb = match request {
        Request::Ping
        | Request::Stop
        | Request::Drain
        | Request::Seen { .. }
        | Request::Stats
        | Request::Inspect { .. } => return Ok(()),
        Request::Signal { signal: 1..=64, .. } => ControlVerb::Signal,
        Request::Signal { signal, .. } => {
            return Err(format!("{signal} is not a valid signal number (1 to 64)"));
        }
        Request::Service { verb: Verb::Start, .. } => ControlVerb::Start,
        Request::Service { verb: Verb::Stop, .. } => ControlVerb::Stop,
        Request::Service { verb: Verb::Restart, .. } => ControlVerb::Restart,
    };
    match peer {
        Identity::Host if !control.host.contains(&verb) => {
            let verb = format!("{verb:?}").to_lowercase();
            Err(format!(
                "the image's manifest does not allow the host to {verb} services (control: [{verb}])"
            ))
        }
        Identity::Host | Identity::Service(_) | Identity::Unknown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_net::Listener;
    use cloister_wire::control::{
        Assembly, Exit, MAX_ERROR_TEXT, MAX_STATUS_TEXT, MAX_WAITS_FOR, Phase, ServiceStatus, State,
    };
    use std::os::unix::net::UnixListener;

    fn service(verb: Verb) -> Request {
        Request::Service { service: "web".into(), verb }
    }

    #[test]
    fn the_host_may_perform_only_the_listed_operations() {
        let control = Control { host: vec![ControlVerb::Restart], services: vec![] };
        assert_eq!(check(&service(Verb::Restart), &Identity::Host, &control), Ok(()));
        assert_eq!(
            check(&service(Verb::Stop), &Identity::Host, &control).unwrap_err(),
            "the image's manifest does not allow the host to stop services (control: [stop])"
        );
        let signal = Request::Signal { service: "web".into(), signal: 1 };
        assert!(check(&signal, &Identity::Host, &control).is_err());
        assert_eq!(check(&Request::Stop, &Identity::Host, &control), Ok(()));
    }

    #[test]
    fn inside_the_listed_services_may_perform_every_operation() {
        let control = Control { host: vec![], services: vec!["admin".into()] };
        let admin = Identity::Service("admin".into());
        assert_eq!(check(&service(Verb::Stop), &admin, &control), Ok(()));
    }

    #[test]
    fn an_invalid_signal_number_is_refused() {
        let control = Control { host: vec![ControlVerb::Signal], services: vec![] };
        for signal in [0, 65, 255] {
            let request = Request::Signal { service: "web".into(), signal };
            assert!(check(&request, &Identity::Host, &control).is_err());
        }
    }

    /// A service whose texts all have the maximum length.
    fn verbose(number: usize) -> ServiceStatus {
        let text = |length| Some("x".repeat(length));
        ServiceStatus {
            name: format!("{number:0>63}"),
            phase: Phase::BackingOff,
            pid: None,
            since_ms: u64::MAX,
            restarts: u32::MAX,
            last_exit: Some(Exit::NotStarted { error: "x".repeat(MAX_ERROR_TEXT) }),
            text: text(MAX_STATUS_TEXT),
            waits_for: text(MAX_WAITS_FOR),
        }
    }

    #[tokio::test]
    async fn the_status_of_sixty_services_with_long_texts_arrives_complete() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let listener = Listener::from_unix(UnixListener::bind(&socket).unwrap()).unwrap();
        let board = Arc::new(Board::new("virtual".into(), Vec::new(), 0));
        board.publish(State::Starting, (0..MAX_SERVICES).map(verbose).collect(), Vec::new());
        let control = watch::channel(Control { host: vec![], services: vec![] }).1;
        let (requests, _requests) = mpsc::channel(1);
        let (status_sent, _status_sent) = mpsc::channel(1);
        let context = Context { board: Arc::clone(&board), control, requests, status_sent };
        drop(tokio::spawn(serve(Entrance::host(listener), context)));
        let host = Stream::connect_unix(&socket).unwrap();
        let opened = channel::open(host, Protocol::Control, Role::Host, channel::Limits::HOST).await;
        let (mut receiver, _sender) = opened.unwrap();
        let (mut assembly, mut whole) = (Assembly::default(), None);
        while whole.is_none() {
            whole = match receiver.receive_soon().await.unwrap() {
                FromGuest::Status(head) => assembly.head(head).unwrap(),
                FromGuest::Services(page) => assembly.page(page).unwrap(),
                FromGuest::Reply { .. } => panic!("a reply without a request"),
            };
        }
        assert_eq!(whole.unwrap().services, board.read().services);
    }
}
