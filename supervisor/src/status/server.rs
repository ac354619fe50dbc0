//! Port 17000 and the local control socket.
//!
//! Its law: a request is judged by who asks. The host may do to single services only what the measured manifest lists;
//! inside, the services it lists may start, stop and signal them. Nobody can do more.

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

/// Connections at once. Of the host: a sleeve, its `ps` and `stop`, a scraper, and room for a few that hang. Of a service:
/// an `initctl wait` or two, and what asks beside them.
const CONNECTIONS: Limits = Limits { host: 16, service: 4, shared: 16 };

/// The shortest time between two statuses on one connection: a service that changes its text a thousand times a second
/// does not fill the host's socket with it, and the final state comes this much later at most.
const PACE: Duration = Duration::from_millis(5);

/// Every service that a manifest may name has room in a status.
const _: () = assert!(MAX_SERVICES <= control::MAX_SERVICES, "readers refuse a status of more services");

/// The id of the answer to a peer that may not ask anything: it is sent before a request is read.
const UNASKED: u64 = 0;

/// A request that is allowed, on its way to whoever can do it.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub peer: Identity,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// What every connection needs.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The status.
    pub board: Arc<Board>,
    /// What the manifest allows, once it has been read.
    pub control: watch::Receiver<Control>,
    /// Where allowed requests go.
    pub asked: mpsc::Sender<Asked>,
    /// Told each time a host has been sent a status.
    pub told: mpsc::Sender<()>,
}

/// Serves connections for ever.
pub async fn serve(entrance: Entrance, asking: Asking) -> Infallible {
    let handle = move |stream, peer| {
        let asking = asking.clone();
        async move {
            // A connection that broke is gone; there is nobody to tell.
            converse(stream, peer, asking).await.unwrap_or_default();
        }
    };
    accept_each(entrance, Places::new(CONNECTIONS), handle).await
}

async fn converse(stream: Stream, peer: Identity, asking: Asking) -> Result<(), ChannelError> {
    let judged = may_control(&peer, &asking.control.borrow().services);
    let (mut receiver, mut sender) =
        channel::open(stream, Protocol::Control, Role::Guest, channel::Limits::HOST).await?;
    if let Err(why) = judged {
        return sender.send(&FromGuest::Reply { id: UNASKED, reply: Reply::Refused { why } }).await;
    }
    let mut changes = asking.board.changes();
    changes.mark_changed();
    let mut quiet_until = Instant::now();
    loop {
        let news = async {
            sleep_until(quiet_until).await;
            changes.changed().await
        };
        tokio::select! {
            news = news => {
                quiet_until = Instant::now() + PACE;
                news.map_err(|_| ChannelError::Closed)?;
                show(&mut sender, asking.board.read()).await?;
                if peer == Identity::Host {
                    // A full queue says already that a host was told.
                    asking.told.try_send(()).unwrap_or_default();
                }
            }
            request = receiver.receive::<FromHost>() => {
                let FromHost { id, request } = request?;
                let reply = answer(request, &peer, &asking).await;
                sender.send(&FromGuest::Reply { id, reply }).await?;
            }
        }
    }
}

/// Sends a status, in as many frames as it needs.
async fn show(sender: &mut Sender, status: Status) -> Result<(), ChannelError> {
    for frame in control::frames(status)? {
        sender.send_encoded(&frame).await?;
    }
    Ok(())
}

async fn answer(request: Request, peer: &Identity, asking: &Asking) -> Reply {
    let judged = may(&request, peer, &asking.control.borrow());
    if let Err(why) = judged {
        return Reply::Refused { why };
    }
    let (answer, answered) = oneshot::channel();
    let refused = || Reply::Refused { why: "the enclave is ending".into() };
    match asking.asked.send(Asked { request, peer: peer.clone(), answer }).await {
        Ok(()) => answered.await.unwrap_or_else(|_| refused()),
        Err(_) => refused(),
    }
}

/// Whether this peer may ask this.
fn may(request: &Request, peer: &Identity, control: &Control) -> Result<(), String> {
    let verb = match request {
        Request::Ping
        | Request::Stop
        | Request::Drain
        | Request::Seen { .. }
        | Request::Stats
        | Request::Inspect { .. } => return Ok(()),
        Request::Signal { signal: 1..=64, .. } => ControlVerb::Signal,
        Request::Signal { signal, .. } => {
            return Err(format!("{signal} is not a signal: they go from 1 to 64"));
        }
        Request::Service { verb: Verb::Start, .. } => ControlVerb::Start,
        Request::Service { verb: Verb::Stop, .. } => ControlVerb::Stop,
        Request::Service { verb: Verb::Restart, .. } => ControlVerb::Restart,
    };
    match peer {
        Identity::Host if !control.host.contains(&verb) => {
            let verb = format!("{verb:?}").to_lowercase();
            Err(format!("the image's manifest does not let the host {verb} services (control: [{verb}])"))
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
    fn the_host_may_do_what_the_manifest_lists_and_nothing_else() {
        let control = Control { host: vec![ControlVerb::Restart], services: vec![] };
        assert_eq!(may(&service(Verb::Restart), &Identity::Host, &control), Ok(()));
        assert_eq!(
            may(&service(Verb::Stop), &Identity::Host, &control).unwrap_err(),
            "the image's manifest does not let the host stop services (control: [stop])"
        );
        let signal = Request::Signal { service: "web".into(), signal: 1 };
        assert!(may(&signal, &Identity::Host, &control).is_err());
        assert_eq!(may(&Request::Stop, &Identity::Host, &control), Ok(()));
    }

    #[test]
    fn inside_every_verb_is_allowed_to_the_services_that_are_named() {
        let control = Control { host: vec![], services: vec!["admin".into()] };
        let admin = Identity::Service("admin".into());
        assert_eq!(may(&service(Verb::Stop), &admin, &control), Ok(()));
    }

    #[test]
    fn a_signal_that_does_not_exist_is_refused() {
        let control = Control { host: vec![ControlVerb::Signal], services: vec![] };
        for signal in [0, 65, 255] {
            let request = Request::Signal { service: "web".into(), signal };
            assert!(may(&request, &Identity::Host, &control).is_err());
        }
    }

    /// A service whose every text is as long as it may be.
    fn troubled(number: usize) -> ServiceStatus {
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
    async fn the_status_of_sixty_services_in_trouble_arrives_with_all_its_texts() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let listener = Listener::from_unix(UnixListener::bind(&socket).unwrap()).unwrap();
        let board = Arc::new(Board::new("virtual".into(), Vec::new(), 0));
        board.show(State::Starting, (0..MAX_SERVICES).map(troubled).collect(), Vec::new());
        let control = watch::channel(Control { host: vec![], services: vec![] }).1;
        let (asked, _asked) = mpsc::channel(1);
        let (told, _told) = mpsc::channel(1);
        let asking = Asking { board: Arc::clone(&board), control, asked, told };
        drop(tokio::spawn(serve(Entrance::host(listener), asking)));
        let host = Stream::connect_unix(&socket).unwrap();
        let opened = channel::open(host, Protocol::Control, Role::Host, channel::Limits::HOST).await;
        let (mut receiver, _sender) = opened.unwrap();
        let (mut assembly, mut whole) = (Assembly::default(), None);
        while whole.is_none() {
            whole = match receiver.receive_soon().await.unwrap() {
                FromGuest::Status(head) => assembly.head(head).unwrap(),
                FromGuest::Services(page) => assembly.page(page).unwrap(),
                FromGuest::Reply { .. } => panic!("nothing was asked"),
            };
        }
        assert_eq!(whole.unwrap().services, board.read().services);
    }
}
