//! The attestor's duty: it gets what provides evidence, and the connections of programs inside that may use it.
//!
//! Invariant: no byte of a client is read here. A client is identified by the cgroup of its process, and passed on with
//! what the manifest allows its service; one that is allowed nothing is passed on too, so that it gets a readable
//! refusal. On the platform `virtual` the sleeve's connections take the place of the module, and are passed on likewise.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cloister_manifest::model::AttestationVerb;
use cloister_net::packets::Packets;
use cloister_net::places::{Limits, Places};
use cloister_net::{Entrance, Gate, Identity, Stream, accept_each};
use cloister_wire::attestor::{
    FromAttestor, MAX_CLIENTS_OF_SERVICE, MAX_SHARED_CLIENTS, NAME, Operation, Provider, ToAttestor,
};
use cloister_wire::hold::Spawn;
use cloister_wire::packet::{LIMIT, encode};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::confirm::Confirmation;
use super::rate_limit::RateLimit;
use super::{Duty, Event};
use crate::confine;

/// Connections that are being passed on: one packet each, so they are here for microseconds unless the attestor does
/// not read. The limits are the attestor's own.
const PASSING: Limits = Limits { host: 0, service: MAX_CLIENTS_OF_SERVICE, shared: MAX_SHARED_CLIENTS };

/// How long a connection waits for an attestor that does not read: longer than the longest pause before it is
/// restarted.
const PASSING_TIME: Duration = Duration::from_secs(10);

/// The operations that the manifest allows, by service.
pub(crate) type Rules = BTreeMap<String, Vec<AttestationVerb>>;

/// Connections of the sleeve that are being passed on: it opens one at a time, and a second one only replaces it.
const SLEEVES: usize = 1;

/// How what provides evidence is reached.
#[derive(Debug)]
pub(crate) enum Source {
    /// Through a descriptor.
    Hardware(Provider, OwnedFd),
    /// Through connections that the sleeve opens: the platform `virtual`.
    Sleeve(Entrance),
}

/// What the attestor is given.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The platform that is attested.
    pub(crate) platform: String,
    /// What provides evidence.
    pub(crate) source: Source,
    /// What it is given besides: the memory of the event log and of the TLS certificate's key, and its ends of the pairs to the
    /// terminator. Their numbers are those of `cloister_wire::attestor`.
    pub(crate) others: [OwnedFd; 4],
    /// The supervisor's end of the pair.
    pub(crate) ours: OwnedFd,
    /// The attestor's end.
    pub(crate) theirs: OwnedFd,
}

/// The attestor's duty.
#[derive(Clone, Debug)]
pub(crate) struct Attestor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    channel: Packets,
    platform: String,
    provider: Provider,
    device: Option<OwnedFd>,
    others: [OwnedFd; 4],
    theirs: OwnedFd,
    rules: Rules,
    empty: watch::Sender<bool>,
    asked: Confirmation,
}

impl Attestor {
    /// The duty that passes the clients of `entrance` on.
    pub(crate) fn new(
        rules: Rules,
        sockets: Sockets,
        entrance: Entrance,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let (provider, device, sleeve) = match sockets.source {
            Source::Hardware(provider, device) => (provider, Some(device), None),
            Source::Sleeve(entrance) => (Provider::Sleeve, None, Some(entrance)),
        };
        let shared = Arc::new(Shared {
            channel: Packets::new(sockets.ours)?,
            platform: sockets.platform,
            provider,
            device,
            others: sockets.others,
            theirs: sockets.theirs,
            rules,
            // It has no work of its own: services that use it are stopped before it.
            empty: watch::Sender::new(true),
            asked: Confirmation::default(),
        });
        drop(tokio::spawn(Arc::clone(&shared).receive(events)));
        let passing = Arc::clone(&shared);
        drop(tokio::spawn(async move {
            let pass = move |stream, peer: Identity| {
                let shared = Arc::clone(&passing);
                async move { shared.pass(&stream, &peer).await }
            };
            accept_each(entrance, Places::new(PASSING), pass).await
        }));
        if let Some(entrance) = sleeve {
            let passing = Arc::clone(&shared);
            drop(tokio::spawn(async move {
                let pass = move |stream: Stream, _: Identity| {
                    let shared = Arc::clone(&passing);
                    async move { shared.deliver(&ToAttestor::Module, &[stream.as_fd()]).await }
                };
                accept_each(entrance, Gate::new(SLEEVES), pass).await
            }));
        }
        Ok(Self(shared))
    }
}

impl Duty for Attestor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn spawn_request(&self) -> io::Result<(Spawn, Vec<OwnedFd>)> {
        let fds = iter::once(&self.0.theirs).chain(&self.0.others).chain(self.0.device.as_ref());
        let fds = fds.map(|fd| fd.as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
        let count = u8::try_from(fds.len()).map_err(io::Error::other)?;
        let recording =
            self.0.rules.values().filter(|verbs| verbs.contains(&AttestationVerb::Extend)).count();
        let (platform, provider) = (&self.0.platform, self.0.provider);
        Ok((confine::attestor(platform, recording, provider, count).map_err(io::Error::other)?, fds))
    }

    fn started(&self) {
        let id = self.0.asked.ask();
        let shared = Arc::clone(&self.0);
        // Clients that wait may be in the queue before it.
        drop(tokio::spawn(async move { shared.deliver(&ToAttestor::Confirm { id }, &[]).await }));
    }

    fn ended(&self) {
        // Connections that were passed on and not received stay in the socket, and the next attestor receives them.
    }

    fn empty(&self) -> watch::Receiver<bool> {
        self.0.empty.subscribe()
    }
}

impl Shared {
    /// Passes a client on.
    async fn pass(&self, stream: &Stream, peer: &Identity) {
        let service = peer.service();
        let allowed = service.and_then(|name| self.rules.get(name));
        let allowed = allowed.into_iter().flatten().copied().map(operation).collect();
        let client = ToAttestor::Client { service: service.map(str::to_owned), allowed };
        self.deliver(&client, &[stream.as_fd()]).await;
    }

    /// Sends a message, as soon as the attestor has space for it. It stays in the socket if the attestor is being restarted.
    async fn deliver(&self, message: &ToAttestor, fds: &[BorrowedFd<'_>]) {
        if let Ok(packet) = encode(message) {
            // A peer that cannot be passed on is disconnected, and tries again.
            drop(timeout(PASSING_TIME, self.channel.send_with(&packet, fds)).await);
        }
    }

    async fn receive(self: Arc<Self>, events: mpsc::Sender<Event>) {
        let (mut buffer, mut rate) = (vec![0; LIMIT], RateLimit::default());
        loop {
            rate.packet().await;
            let event = match self.channel.next(&mut buffer).await {
                // Descriptors that come with it are closed.
                Ok((FromAttestor::Ready { id }, _)) if self.asked.is_last(id) => Event::Ready(NAME),
                // The report of a predecessor, or one to an earlier supervisor.
                Ok(_) => continue,
                Err(error) => Event::Misbehaved(NAME, format!("it sent an invalid message: {error}")),
            };
            // The receiver exists as long as the supervisor.
            events.send(event).await.unwrap_or_default();
        }
    }
}

const fn operation(verb: AttestationVerb) -> Operation {
    match verb {
        AttestationVerb::Evidence => Operation::Evidence,
        AttestationVerb::Random => Operation::Random,
        AttestationVerb::Extend => Operation::Extend,
        AttestationVerb::Lock => Operation::Lock,
    }
}

#[cfg(test)]
mod tests {
    use cloister_net::packets::pair;

    use super::*;

    #[tokio::test]
    async fn a_report_of_a_predecessor_does_not_count() {
        let (ours, theirs) = pair().unwrap();
        let attestor = Packets::new(theirs.try_clone().unwrap()).unwrap();
        let shared = Arc::new(Shared {
            channel: Packets::new(ours).unwrap(),
            platform: "nitro".into(),
            provider: Provider::Nsm,
            device: None,
            others: [(); 4].map(|()| theirs.try_clone().unwrap()),
            theirs,
            rules: Rules::new(),
            empty: watch::Sender::new(true),
            asked: Confirmation::default(),
        });
        let (events, mut received) = mpsc::channel(4);
        drop(tokio::spawn(Arc::clone(&shared).receive(events)));
        let (first, second) = (shared.asked.ask(), shared.asked.ask());
        for id in [first, second] {
            attestor.report(&FromAttestor::Ready { id }).await.unwrap();
        }
        assert!(matches!(received.recv().await, Some(Event::Ready(NAME))));
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "the first report is ignored");
    }
}
