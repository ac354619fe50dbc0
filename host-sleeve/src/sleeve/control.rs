//! The control channel: status in, requests out.
//!
//! Invariant: the enclave's supervisor may crash and be restarted, so this reconnects for as long as the machine runs.
//! Received data is bounded and parsed; a peer that violates the protocol is disconnected, one of another version is
//! reported.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::Stream;
use cloister_net::channel::{self, ChannelError, Limits, Receiver, Sender};
use cloister_wire::control::{Assembly, FromGuest, FromHost, Reply};
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::ports;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use crate::client::EnclaveRequest;
use crate::transport::Transport;

use super::lifecycle::Event;

/// The first pause between two attempts to connect: a booting enclave should not have to wait for us.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: connecting to an enclave that is unreachable is attempted ten times a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The limits of a channel to an enclave: its supervisor sends its hello as soon as a connection is made, so 5 s is many
/// times what a busy machine needs, and the next attempt is another chance.
pub(super) const LIMITS: Limits = Limits { read: 16 * 1024, hello: Duration::from_secs(5), ..Limits::HOST };

/// Maximum number of requests waiting for a reply. More are refused here.
const MAX_PENDING: usize = 64;

/// Why a connection was closed.
enum Closed {
    /// The peer closed it: reconnect.
    Retry,
    /// The peer violated the protocol: reconnect after growing pauses.
    ProtocolError,
    /// The peer is incompatible.
    Incompatible(String),
    /// Nothing uses the channel any more.
    Done,
}

/// Keeps the channel open until the receiver of `events` or every sender of `requests` is gone.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    mut requests: mpsc::Receiver<EnclaveRequest>,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(stream) = transport.connect(ports::CONTROL).await {
            match open_and_serve(stream, &mut requests, &events).await {
                Closed::Done => return,
                Closed::Incompatible(why) => {
                    // If the receiver is gone, the run is over.
                    drop(events.send(Event::Broken(why)).await);
                    return;
                }
                Closed::Retry => pause = FIRST_PAUSE,
                Closed::ProtocolError => {}
            }
        }
        tokio::select! {
            () = time::sleep(pause) => {}
            () = events.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open_and_serve(
    stream: Stream,
    requests: &mut mpsc::Receiver<EnclaveRequest>,
    events: &mpsc::Sender<Event>,
) -> Closed {
    let (receiver, sender) = match channel::open(stream, Protocol::Control, Role::Host, LIMITS).await {
        Ok(channel) => channel,
        Err(ChannelError::Hello(why)) => {
            return Closed::Incompatible(format!("cannot communicate with the enclave: {why}"));
        }
        Err(_) => return Closed::ProtocolError,
    };
    match serve(receiver, sender, requests, events).await {
        Ok(closed) => closed,
        Err(ChannelError::Closed | ChannelError::Io(_)) => Closed::Retry,
        Err(_) => Closed::ProtocolError,
    }
}

async fn serve(
    mut receiver: Receiver,
    mut sender: Sender,
    requests: &mut mpsc::Receiver<EnclaveRequest>,
    events: &mpsc::Sender<Event>,
) -> Result<Closed, ChannelError> {
    let mut pending: HashMap<u64, oneshot::Sender<Reply>> = HashMap::new();
    let mut next_id = 0;
    let mut assembly = Assembly::default();
    loop {
        tokio::select! {
            message = receiver.receive::<FromGuest>() => {
                let whole = match message? {
                    FromGuest::Status(head) => assembly.head(head),
                    FromGuest::Services(page) => assembly.page(page),
                    FromGuest::Reply { id, reply } => {
                        if let Some(answer) = pending.remove(&id) {
                            // The requester may be gone.
                            drop(answer.send(reply));
                        }
                        Ok(None)
                    }
                };
                let Ok(whole) = whole else { return Ok(Closed::ProtocolError) };
                if let Some(status) = whole
                    && events.send(Event::Status(Box::new(status))).await.is_err()
                {
                    return Ok(Closed::Done);
                }
            }
            request = requests.recv() => {
                let Some(request) = request else { return Ok(Closed::Done) };
                next_id += 1;
                send(&mut sender, request, next_id, &mut pending).await?;
            }
        }
    }
}

async fn send(
    sender: &mut Sender,
    request: EnclaveRequest,
    id: u64,
    pending: &mut HashMap<u64, oneshot::Sender<Reply>>,
) -> Result<(), ChannelError> {
    pending.retain(|_, answer| !answer.is_closed());
    if let Some(answer) = request.answer {
        if answer.is_closed() {
            // The requester has timed out, and may have sent the request again.
            return Ok(());
        }
        if pending.len() >= MAX_PENDING {
            drop(answer.send(Reply::Refused { why: "too many requests are waiting for a reply".into() }));
            return Ok(());
        }
        pending.insert(id, answer);
    }
    sender.send(&FromHost { id, request: request.request }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Pending;
    use cloister_net::Listener;
    use cloister_wire::control::{Head, IngressCounters, Page, Phase, Request, ServiceStatus, State, Status};
    use std::io;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    /// A Unix socket in place of the enclave's supervisor.
    #[derive(Debug)]
    struct Socket(PathBuf);

    impl Transport for Socket {
        fn connect(&self, _: u32) -> Pending<'_, io::Result<Stream>> {
            Box::pin(async { Stream::connect_unix(&self.0) })
        }
    }

    /// A simulated enclave.
    struct Guest {
        _directory: tempfile::TempDir,
        listener: Listener,
        events: mpsc::Receiver<Event>,
        requests: mpsc::Sender<EnclaveRequest>,
    }

    impl Guest {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("control");
            let listener = Listener::from_unix(UnixListener::bind(&path).unwrap()).unwrap();
            let (events_sender, events) = mpsc::channel(8);
            let (requests, inbox) = mpsc::channel(1);
            drop(tokio::spawn(run(Arc::new(Socket(path)), inbox, events_sender)));
            Self { _directory: directory, listener, events, requests }
        }

        async fn accept(&self) -> (Receiver, Sender) {
            let (stream, _) = self.listener.accept().await.unwrap();
            channel::open(stream, Protocol::Control, Role::Guest, Limits::HOST).await.unwrap()
        }

        async fn status(&mut self) -> Status {
            let Some(Event::Status(status)) = self.events.recv().await else { panic!("no status") };
            *status
        }
    }

    fn service(name: &str) -> ServiceStatus {
        ServiceStatus {
            name: name.to_owned(),
            phase: Phase::Failed,
            pid: None,
            since_ms: 0,
            restarts: 0,
            last_exit: None,
            text: Some("x".repeat(40_000)),
            waits_for: None,
        }
    }

    fn status(seq: u64, services: &[&str]) -> Status {
        Status {
            seq,
            state: State::Ready,
            platform: "virtual".into(),
            uptime_ms: 0,
            supervisor_restarts: 0,
            boot: Vec::new(),
            services: services.iter().map(|name| service(name)).collect(),
            servants: Vec::new(),
            ingress: IngressCounters::default(),
            registers: Vec::new(),
            time: None,
        }
    }

    #[tokio::test]
    async fn a_status_in_several_frames_is_published_once_when_complete() {
        let mut guest = Guest::new();
        let (mut receiver, mut sender) = guest.accept().await;
        let whole = status(1, &["web", "db", "job"]);
        let frames = cloister_wire::control::frames(whole.clone()).unwrap();
        assert_eq!(frames.len(), 3);
        let (answer, answered) = oneshot::channel();
        guest.requests.send(EnclaveRequest { request: Request::Ping, answer: Some(answer) }).await.unwrap();
        let FromHost { id, .. } = receiver.receive().await.unwrap();
        let (last, first) = frames.split_last().unwrap();
        for frame in first {
            sender.send_encoded(frame).await.unwrap();
        }
        // A reply may arrive between two frames; once it is here, everything sent before it has been read.
        sender.send(&FromGuest::Reply { id, reply: Reply::Done }).await.unwrap();
        assert_eq!(answered.await, Ok(Reply::Done));
        assert!(guest.events.try_recv().is_err(), "an incomplete status was published");
        sender.send_encoded(last).await.unwrap();
        assert_eq!(guest.status().await, whole);
    }

    #[tokio::test]
    async fn a_peer_whose_pages_belong_to_no_status_is_disconnected_and_nothing_is_published() {
        let mut guest = Guest::new();
        let begins = FromGuest::Status(Head { status: status(1, &[]), follow: 1 });
        let too_many = FromGuest::Status(Head { status: status(1, &[]), follow: usize::MAX });
        let page = |seq| FromGuest::Services(Page { seq, services: vec![service("web")] });
        for messages in
            [vec![page(1)], vec![begins.clone(), page(2)], vec![begins.clone(), begins], vec![too_many]]
        {
            let (mut receiver, mut sender) = guest.accept().await;
            for message in messages {
                sender.send(&message).await.unwrap();
            }
            assert!(receiver.receive::<FromHost>().await.is_err(), "the connection was not closed");
        }
        assert!(guest.events.try_recv().is_err());
        let (_receiver, mut sender) = guest.accept().await;
        sender.send(&FromGuest::Status(status(2, &[]).into())).await.unwrap();
        assert_eq!(guest.status().await.seq, 2, "it was not reconnected to");
    }
}
