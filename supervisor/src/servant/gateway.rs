//! The gateway's duty: what it is told, what it may ask, and what is believed of what it says.
//!
//! Its law: its counters and lines are shown as its word; nothing is decided by them. A packet that is no message ends it. The
//! sockets outlive both programs: init keeps them ([`Sockets`]), so connections go on while one of the two is restarted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_manifest::model;
use cloister_net::packets::{Packets, discard};
use cloister_net::tcp_on_shared_port;
use cloister_wire::control::{IngressCounters, bounded};
use cloister_wire::gateway::{
    FromGateway, LIMIT, MAX_LINE, MAX_TARGETS, NAME, Target, ToGateway, decode, encode,
};
use cloister_wire::hold::Spawn;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::pace::Pace;
use super::{Duty, Event};
use crate::confine;
use crate::logs::Shared as Logs;
use crate::owners::Owners;

/// How long a reader of the counters waits for the newest. A gateway that is busy answers within a turn of its reactor; one that
/// does not answer is shown as it was.
const COUNT_TIME: Duration = Duration::from_millis(200);

/// The sockets, as init keeps them.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Where the host connects.
    pub(crate) listener: OwnedFd,
    /// The supervisor's end of the pair.
    pub(crate) ours: OwnedFd,
    /// The gateway's.
    pub(crate) theirs: OwnedFd,
}

/// The gateway, as its duty and as what the status counts. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Gateway(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    channel: Packets,
    listener: OwnedFd,
    theirs: OwnedFd,
    table: Vec<model::Ingress>,
    owners: Owners,
    logs: Logs,
    events: mpsc::Sender<Event>,
    state: Mutex<State>,
    /// Something is to be sent.
    due: Notify,
    empty: watch::Sender<bool>,
    /// Rises with each report of the counters.
    counted: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    runs: bool,
    draining: bool,
    to_send: ToSend,
    totals: Totals,
}

/// What is to be sent. Each is sent in its newest form, so what waits while nobody reads is bounded.
#[derive(Debug, Default)]
struct ToSend {
    table: bool,
    drain: bool,
    count: bool,
}

/// The counters of all gateways so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Totals {
    /// Of those that have ended.
    before: IngressCounters,
    /// Of the one that runs, as it said last.
    last: IngressCounters,
}

impl Totals {
    /// The gateway has ended, and its connections with it.
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
    /// The duty for the manifest's `ingress`, which counts on from what was `kept`.
    pub(crate) fn new(
        table: Vec<model::Ingress>,
        sockets: Sockets,
        owners: Owners,
        logs: Logs,
        events: mpsc::Sender<Event>,
        kept: Option<&Value>,
    ) -> io::Result<Self> {
        let totals = kept.and_then(|kept| Totals::deserialize(kept).ok()).unwrap_or_default();
        let shared = Arc::new(Shared {
            channel: Packets::new(sockets.ours)?,
            listener: sockets.listener,
            theirs: sockets.theirs,
            table,
            owners,
            logs,
            events,
            state: Mutex::new(State { totals, ..State::default() }),
            due: Notify::new(),
            empty: watch::Sender::new(true),
            counted: watch::Sender::new(0),
        });
        drop(tokio::spawn(Arc::clone(&shared).send()));
        drop(tokio::spawn(Arc::clone(&shared).hear()));
        Ok(Self(shared))
    }

    /// What has been carried so far, as the gateway said last.
    pub(crate) fn counters(&self) -> IngressCounters {
        self.0.state().totals.sum()
    }
}

impl Duty for Gateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn order(&self) -> io::Result<(Spawn, Vec<OwnedFd>)> {
        let spec = confine::gateway().map_err(io::Error::other)?;
        let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned();
        Ok((spec, vec![copy(&self.0.listener)?, copy(&self.0.theirs)?]))
    }

    fn begins(&self) {
        let mut state = self.0.state();
        state.runs = true;
        let draining = state.draining;
        drop(state);
        self.0.want(|to_send| *to_send = ToSend { table: true, drain: draining, count: true });
    }

    fn ended(&self) {
        self.0.take_last_words();
        let mut state = self.0.state();
        state.runs = false;
        state.to_send = ToSend::default();
        state.totals.end();
        drop(state);
        // What was for the one that ended would be read by its successor.
        discard(&self.0.theirs);
        self.0.empty.send_replace(true);
    }

    fn owners_changed(&self) {
        self.0.want(|to_send| to_send.table = true);
    }

    fn drain(&self) {
        let mut state = self.0.state();
        state.draining = true;
        self.0.empty.send_replace(!state.runs);
        drop(state);
        self.0.want(|to_send| to_send.drain = true);
    }

    fn empty(&self) -> watch::Receiver<bool> {
        self.0.empty.subscribe()
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut counted = self.0.counted.subscribe();
        let asked = self.0.want(|to_send| to_send.count = true);
        Box::pin(async move {
            if asked {
                // A gateway that does not answer in time is shown as it was.
                drop(timeout(COUNT_TIME, counted.changed()).await);
            }
        })
    }

    fn keep(&self) -> Value {
        serde_json::to_value(self.0.state().totals).unwrap_or_default()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is to be sent, if there is somebody to send it to.
    fn want(&self, note: impl FnOnce(&mut ToSend)) -> bool {
        let mut state = self.state();
        if state.runs {
            note(&mut state.to_send);
            self.due.notify_one();
        }
        state.runs
    }

    async fn send(self: Arc<Self>) {
        loop {
            self.due.notified().await;
            for message in self.messages() {
                // Table and names are bounded, and the pair's other end is open as long as this one is.
                if let Ok(packet) = encode(&message) {
                    self.channel.send(&packet).await.unwrap_or_default();
                }
            }
        }
    }

    /// What is to be sent now.
    fn messages(&self) -> Vec<ToGateway> {
        let to_send = std::mem::take(&mut self.state().to_send);
        let mut messages = if to_send.table { self.table() } else { Vec::new() };
        messages.extend(to_send.drain.then_some(ToGateway::Drain));
        messages.extend(to_send.count.then_some(ToGateway::Count));
        messages
    }

    /// Where the ports lead now, in as many packets as it takes.
    fn table(&self) -> Vec<ToGateway> {
        let target = |entry: &model::Ingress| Target {
            port: entry.port,
            target: entry.target,
            cgroup: self.owners.of(&entry.service),
            service: entry.service.clone(),
            proxy_protocol: entry.proxy_protocol,
        };
        let pieces = self.table.chunks(MAX_TARGETS);
        let last = pieces.len().saturating_sub(1);
        let packet = |(place, piece): (usize, &[model::Ingress])| ToGateway::Table {
            targets: piece.iter().map(target).collect(),
            more: place < last,
        };
        pieces.enumerate().map(packet).collect()
    }

    async fn hear(self: Arc<Self>) {
        let (mut buffer, mut pace) = (vec![0; LIMIT], Pace::default());
        loop {
            pace.packet().await;
            let why = match self.channel.recv(&mut buffer).await {
                // Descriptors that come along are closed.
                Ok((count, _)) => match decode(buffer.get(..count).unwrap_or_default()) {
                    Ok(message) => {
                        self.take(message, &mut pace).await;
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let why = format!("it sent what is no message: {why}");
            // The receiver ends with the supervisor.
            self.events.send(Event::Misbehaved(NAME, why)).await.unwrap_or_default();
        }
    }

    async fn take(&self, message: FromGateway, pace: &mut Pace) {
        match message {
            FromGateway::Ready => self.events.send(Event::Ready(NAME)).await.unwrap_or_default(),
            FromGateway::Drained => drop(self.empty.send_replace(true)),
            FromGateway::Counters(counters) => self.count(counters),
            FromGateway::Refused { line } if pace.line(Instant::now()) => {
                self.logs.say_of_ingress(&bounded(&line, MAX_LINE));
            }
            FromGateway::Refused { .. } => {}
            FromGateway::Borrow { id, to, sends_first: speaks } => self.lend(id, to, speaks),
        }
    }

    fn count(&self, counters: IngressCounters) {
        self.state().totals.last = counters;
        self.counted.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes the socket that the gateway cannot make, for a port that it may connect to.
    fn lend(&self, id: u64, to: std::net::SocketAddr, speaks: bool) {
        let may = to.ip().is_loopback() && self.table.iter().any(|entry| entry.target == to.port());
        let made =
            if may { tcp_on_shared_port(to, speaks) } else { Err(io::ErrorKind::PermissionDenied.into()) };
        let (socket, errno) = match made {
            Ok(socket) => (Some(socket), None),
            Err(error) => (None, Some(error.raw_os_error().unwrap_or(libc::EPERM))),
        };
        let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        if let Ok(packet) = encode(&ToGateway::Loaned { id, errno }) {
            // A gateway that does not read gives up by itself.
            self.channel.try_send(&packet, &fds).unwrap_or_default();
        }
    }

    /// Takes what a gateway that has ended sent last.
    fn take_last_words(&self) {
        let mut buffer = vec![0; LIMIT];
        let mut pace = Pace::default();
        while let Ok((count, _)) = self.channel.try_recv(&mut buffer) {
            match decode(buffer.get(..count).unwrap_or_default()) {
                Ok(FromGateway::Counters(counters)) => self.count(counters),
                Ok(FromGateway::Refused { line }) if pace.line(Instant::now()) => {
                    self.logs.say_of_ingress(&bounded(&line, MAX_LINE));
                }
                // What it asked for is asked for by nobody any more.
                Ok(_) | Err(_) => {}
            }
        }
    }
}
