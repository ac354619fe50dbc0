//! The gateway's duty: what is sent to it, what it may request, and how far its messages are trusted.
//!
//! Invariant: its counters and lines are shown as it reports them; no decision depends on them. It is killed if it
//! sends an invalid message. The sockets outlive both programs: init holds them ([`Sockets`]), so that connections
//! continue while the supervisor is restarted, and clients wait while the gateway is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_manifest::model;
use cloister_net::packets::{Packets, discard};
use cloister_net::tcp_on_shared_port;
use cloister_wire::control::{IngressCounters, bounded};
use cloister_wire::gateway::{FromGateway, MAX_LINE, MAX_TARGETS, NAME, Target, ToGateway};
use cloister_wire::hold::Spawn;
use cloister_wire::packet::{LIMIT, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::rate_limit::RateLimit;
use super::{Duty, Event};
use crate::confine;
use crate::logs::Shared as Logs;
use crate::owners::Owners;

/// How long a reader of the counters waits for the latest values. A busy gateway responds within a turn of its reactor;
/// if it does not respond, the last values are shown.
const COUNT_TIME: Duration = Duration::from_millis(200);

/// The sockets, which init holds too.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Where the host connects.
    pub(crate) listener: OwnedFd,
    /// The supervisor's end of the pair.
    pub(crate) ours: OwnedFd,
    /// The gateway's end.
    pub(crate) theirs: OwnedFd,
    /// The gateway's end of the pair to the terminator, if there is one.
    pub(crate) terminator: Option<OwnedFd>,
}

/// What the ports lead to.
#[derive(Debug)]
pub(crate) struct Ports {
    /// To services.
    pub(crate) ingress: Vec<model::Ingress>,
    /// To the attestation server.
    pub(crate) attestation: Option<u16>,
}

/// The gateway: its duty, and its counters for the status. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Gateway(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    channel: Packets,
    listener: OwnedFd,
    theirs: OwnedFd,
    terminator: Option<OwnedFd>,
    ports: Ports,
    owners: Owners,
    logs: Logs,
    events: mpsc::Sender<Event>,
    state: Mutex<State>,
    /// Signals that [`ToSend`] has changed.
    due: Notify,
    empty: watch::Sender<bool>,
    /// Increases with each report of the counters.
    counted: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    runs: bool,
    draining: bool,
    to_send: ToSend,
    totals: Totals,
}

/// The messages to send. Each is sent in its latest form, so that the backlog is bounded while the gateway does not
/// read.
#[derive(Debug, Default)]
struct ToSend {
    table: bool,
    drain: bool,
    count: bool,
}

/// The counters of all gateways so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Totals {
    /// Of gateways that have exited.
    before: IngressCounters,
    /// Of the running one, as last reported.
    last: IngressCounters,
}

impl Totals {
    /// The gateway has exited, and its connections are closed.
    fn end(&mut self) {
        self.before = self.sum();
        self.before.open = 0;
        self.last = IngressCounters::default();
    }

    fn sum(&self) -> IngressCounters {
        let (before, last) = (&self.before, &self.last);
        IngressCounters {
            accepted: before.accepted.saturating_add(last.accepted),
            open: last.open,
            refused: before.refused.saturating_add(last.refused),
            bytes_in: before.bytes_in.saturating_add(last.bytes_in),
            bytes_out: before.bytes_out.saturating_add(last.bytes_out),
        }
    }
}

impl Gateway {
    /// The duty for the manifest's ports, whose counters continue from the `saved` ones.
    pub(crate) fn new(
        ports: Ports,
        sockets: Sockets,
        owners: Owners,
        logs: Logs,
        events: mpsc::Sender<Event>,
        saved: Option<&Value>,
    ) -> io::Result<Self> {
        let totals = saved.and_then(|saved| Totals::deserialize(saved).ok()).unwrap_or_default();
        let shared = Arc::new(Shared {
            channel: Packets::new(sockets.ours)?,
            listener: sockets.listener,
            theirs: sockets.theirs,
            terminator: sockets.terminator,
            ports,
            owners,
            logs,
            events,
            state: Mutex::new(State { totals, ..State::default() }),
            due: Notify::new(),
            empty: watch::Sender::new(true),
            counted: watch::Sender::new(0),
        });
        drop(tokio::spawn(Arc::clone(&shared).send()));
        drop(tokio::spawn(Arc::clone(&shared).receive()));
        Ok(Self(shared))
    }

    /// The totals so far, as the gateway last reported.
    pub(crate) fn counters(&self) -> IngressCounters {
        self.0.state().totals.sum()
    }
}

impl Duty for Gateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn spawn_request(&self) -> io::Result<(Spawn, Vec<OwnedFd>)> {
        let spec = confine::gateway(self.0.terminator.is_some()).map_err(io::Error::other)?;
        let fds = [&self.0.listener, &self.0.theirs].into_iter().chain(&self.0.terminator);
        let fds = fds.map(|fd| fd.as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
        Ok((spec, fds))
    }

    fn started(&self) {
        let mut state = self.0.state();
        state.runs = true;
        let draining = state.draining;
        drop(state);
        self.0.schedule(|to_send| *to_send = ToSend { table: true, drain: draining, count: true });
    }

    fn ended(&self) {
        self.0.read_remaining();
        let mut state = self.0.state();
        state.runs = false;
        state.to_send = ToSend::default();
        state.totals.end();
        drop(state);
        // Without this, the successor would read messages for the gateway that exited.
        discard(&self.0.theirs);
        self.0.empty.send_replace(true);
    }

    fn owners_changed(&self) {
        self.0.schedule(|to_send| to_send.table = true);
    }

    fn drain(&self) {
        let mut state = self.0.state();
        state.draining = true;
        self.0.empty.send_replace(!state.runs);
        drop(state);
        self.0.schedule(|to_send| to_send.drain = true);
    }

    fn empty(&self) -> watch::Receiver<bool> {
        self.0.empty.subscribe()
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut counted = self.0.counted.subscribe();
        let requested = self.0.schedule(|to_send| to_send.count = true);
        Box::pin(async move {
            if requested {
                // If the gateway does not respond in time, its last values are shown.
                drop(timeout(COUNT_TIME, counted.changed()).await);
            }
        })
    }

    fn saved(&self) -> Value {
        serde_json::to_value(self.0.state().totals).unwrap_or_default()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Schedules a message, if the gateway runs, and returns whether it does.
    fn schedule(&self, update: impl FnOnce(&mut ToSend)) -> bool {
        let mut state = self.state();
        if state.runs {
            update(&mut state.to_send);
            self.due.notify_one();
        }
        state.runs
    }

    async fn send(self: Arc<Self>) {
        loop {
            self.due.notified().await;
            for message in self.messages() {
                // Table and names are bounded, and the other end of the pair stays open as long as this one.
                if let Ok(packet) = encode(&message) {
                    self.channel.send(&packet).await.unwrap_or_default();
                }
            }
        }
    }

    /// The messages to send now.
    fn messages(&self) -> Vec<ToGateway> {
        let to_send = std::mem::take(&mut self.state().to_send);
        // A drain comes first: a gateway that begins in the middle of one accepts nothing.
        let mut messages: Vec<ToGateway> = to_send.drain.then_some(ToGateway::Drain).into_iter().collect();
        if to_send.table {
            messages.extend(self.table());
        }
        messages.extend(to_send.count.then_some(ToGateway::Count));
        messages
    }

    /// The current targets of the ports, in as many packets as needed.
    fn table(&self) -> Vec<ToGateway> {
        let target = |entry: &model::Ingress| Target {
            port: entry.port,
            target: entry.target,
            cgroup: self.owners.of(&entry.service),
            service: entry.service.clone(),
            proxy_protocol: entry.proxy_protocol,
        };
        // Without services there is one packet, which is empty.
        let pieces =
            self.ports.ingress.chunks(MAX_TARGETS).chain(self.ports.ingress.is_empty().then_some(&[][..]));
        let pieces: Vec<_> = pieces.collect();
        let last = pieces.len().saturating_sub(1);
        let packet = |(place, piece): (usize, &[model::Ingress])| ToGateway::Table {
            first: place == 0,
            targets: piece.iter().map(target).collect(),
            attestation: self.ports.attestation,
            more: place < last,
        };
        pieces.into_iter().enumerate().map(packet).collect()
    }

    async fn receive(self: Arc<Self>) {
        let (mut buffer, mut rate) = (vec![0; LIMIT], RateLimit::default());
        loop {
            rate.packet().await;
            match self.channel.next(&mut buffer).await {
                // Descriptors that come with it are closed.
                Ok((message, _)) => self.handle(message, &mut rate).await,
                Err(error) => {
                    let why = format!("it sent an invalid message: {error}");
                    // The receiver exists as long as the supervisor.
                    self.events.send(Event::Misbehaved(NAME, why)).await.unwrap_or_default();
                }
            }
        }
    }

    async fn handle(&self, message: FromGateway, rate: &mut RateLimit) {
        match message {
            FromGateway::Ready => self.events.send(Event::Ready(NAME)).await.unwrap_or_default(),
            FromGateway::Drained => drop(self.empty.send_replace(true)),
            FromGateway::Counters(counters) => self.count(counters),
            FromGateway::Refused { line } if rate.line(Instant::now()) => {
                self.logs.log_ingress(&bounded(&line, MAX_LINE));
            }
            FromGateway::Refused { .. } => {}
            FromGateway::Borrow { id, to } => self.lend(id, to),
        }
    }

    fn count(&self, counters: IngressCounters) {
        self.state().totals.last = counters;
        self.counted.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Creates a socket that the gateway lacks the privilege to create, for a port that it may connect to.
    fn lend(&self, id: u64, to: std::net::SocketAddr) {
        let is_allowed =
            to.ip().is_loopback() && self.ports.ingress.iter().any(|entry| entry.target == to.port());
        let created =
            if is_allowed { tcp_on_shared_port(to) } else { Err(io::ErrorKind::PermissionDenied.into()) };
        let (socket, errno) = match created {
            Ok(socket) => (Some(socket), None),
            Err(error) => (None, Some(error.raw_os_error().unwrap_or(libc::EPERM))),
        };
        let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        if let Ok(packet) = encode(&ToGateway::Loaned { id, errno }) {
            // In a gateway that does not read, the request times out.
            self.channel.try_send(&packet, &fds).unwrap_or_default();
        }
    }

    /// Reads the remaining messages of a gateway that has exited.
    fn read_remaining(&self) {
        let mut buffer = vec![0; LIMIT];
        let mut rate = RateLimit::default();
        while let Ok((count, _)) = self.channel.try_recv(&mut buffer) {
            match decode(buffer.get(..count).unwrap_or_default()) {
                Ok(FromGateway::Counters(counters)) => self.count(counters),
                Ok(FromGateway::Refused { line }) if rate.line(Instant::now()) => {
                    self.logs.log_ingress(&bounded(&line, MAX_LINE));
                }
                // Its requests are obsolete.
                Ok(_) | Err(_) => {}
            }
        }
    }
}
