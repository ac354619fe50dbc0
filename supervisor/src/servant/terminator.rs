//! The terminator's duty: it gets the pairs to its neighbours, and nothing else.
//!
//! Invariant: no connection passes through the supervisor. The gateway hands clients to the terminator, and the terminator to the
//! attestor, over pairs that init holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cloister_net::packets::Packets;
use cloister_wire::hold::Spawn;
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{FromTerminator, NAME, ToTerminator};
use tokio::sync::{mpsc, watch};

use super::confirm::Confirmation;
use super::rate_limit::RateLimit;
use super::{Duty, Event};
use crate::confine;

/// What the terminator is given.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The supervisor's end of the pair.
    pub(crate) ours: OwnedFd,
    /// Its ends of all pairs, in the order of the numbers in `cloister_wire::terminator`.
    pub(crate) theirs: [OwnedFd; 4],
}

/// The terminator's duty.
#[derive(Clone, Debug)]
pub(crate) struct Terminator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    channel: Packets,
    theirs: [OwnedFd; 4],
    asked: Confirmation,
    empty: watch::Sender<bool>,
}

impl Terminator {
    pub(crate) fn new(sockets: Sockets, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            channel: Packets::new(sockets.ours)?,
            theirs: sockets.theirs,
            asked: Confirmation::default(),
            // Its connections are the gateway's too, which ends them.
            empty: watch::Sender::new(true),
        });
        drop(tokio::spawn(Arc::clone(&shared).receive(events)));
        Ok(Self(shared))
    }
}

impl Duty for Terminator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn spawn_request(&self) -> io::Result<(Spawn, Vec<OwnedFd>)> {
        let fds: Vec<_> =
            self.0.theirs.iter().map(|fd| fd.as_fd().try_clone_to_owned()).collect::<io::Result<_>>()?;
        Ok((confine::terminator().map_err(io::Error::other)?, fds))
    }

    fn started(&self) {
        let (shared, id) = (Arc::clone(&self.0), self.0.asked.ask());
        // If it does not read, it is killed as not ready.
        drop(tokio::spawn(async move { shared.channel.report(&ToTerminator::Confirm { id }).await }));
    }

    fn ended(&self) {}

    fn empty(&self) -> watch::Receiver<bool> {
        self.0.empty.subscribe()
    }
}

impl Shared {
    async fn receive(self: Arc<Self>, events: mpsc::Sender<Event>) {
        let (mut buffer, mut rate) = (vec![0; LIMIT], RateLimit::default());
        loop {
            rate.packet().await;
            let event = match self.channel.next(&mut buffer).await {
                // Descriptors that come with it are closed.
                Ok((FromTerminator::Ready { id }, _)) if self.asked.is_last(id) => Event::Ready(NAME),
                Ok(_) => continue,
                Err(error) => Event::Misbehaved(NAME, format!("it sent an invalid message: {error}")),
            };
            // The receiver exists as long as the supervisor.
            events.send(event).await.unwrap_or_default();
        }
    }
}
