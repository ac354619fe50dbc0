//! Port 17001: readers of the log.
//!
//! Invariant: a reader uses a bounded buffer. It may lag behind until the rings wrap, and is then sent the number of
//! records it missed; one that reads nothing at all is disconnected after a minute. It delays neither services nor other
//! readers, and takes no connection slot of another kind of peer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Receiver, Sender};
use cloister_net::places::{Limits, Places};
use cloister_net::{Entrance, Identity, Stream, accept_each, within};
use cloister_wire::frame::{HOST_LIMIT, encode_bytes};
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::logs::{END, Subscribe};
use cloister_wire::ports::MAX_VSOCK_WRITE;
use tokio::sync::watch;

use super::store::Shared;
use crate::permission::may_control;

/// Concurrent readers. Host: a `logs -f` or two, a collector, and as many again. Service: one that follows and
/// one that looks something up.
const READERS: Limits = Limits { host: 8, service: 2, shared: 8 };

/// How long a reader that was sent everything may take to close its connection.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The readers, and whether the log is complete.
#[derive(Debug)]
pub struct Readers {
    places: Arc<Places>,
    concluded: watch::Sender<bool>,
    /// The services that may read, in addition to the host.
    services: Vec<String>,
}

impl Readers {
    /// Starts without readers. Inside the enclave, these services may read.
    #[must_use]
    pub fn new(services: Vec<String>) -> Arc<Self> {
        Arc::new(Self { places: Places::new(READERS), concluded: watch::Sender::new(false), services })
    }

    /// Declares the log complete: every reader is sent the rest and disconnected.
    pub fn conclude(&self) {
        self.concluded.send_replace(true);
    }

    /// Waits until no reader is connected.
    pub async fn gone(&self) {
        self.places.empty().await;
    }

    fn may_read(&self, peer: &Identity) -> bool {
        may_control(peer, &self.services).is_ok()
    }
}

/// Serves readers forever.
pub async fn serve(entrance: Entrance, logs: Shared, readers: Arc<Readers>) -> Infallible {
    let places = Arc::clone(&readers.places);
    let handle = move |stream, peer| {
        let (logs, readers) = (logs.clone(), Arc::clone(&readers));
        async move {
            if readers.may_read(&peer) {
                // If the connection failed, the reader is gone, and there is no one to report it to.
                read(stream, &logs, readers.concluded.subscribe()).await.unwrap_or_default();
            }
        }
    };
    accept_each(entrance, places, handle).await
}

async fn read(
    stream: Stream,
    logs: &Shared,
    mut concluded: watch::Receiver<bool>,
) -> Result<(), ChannelError> {
    let (mut receiver, mut sender) =
        channel::open(stream, Protocol::Logs, Role::Guest, channel::Limits::HOST).await?;
    let wanted: Subscribe = receiver.receive_soon().await?;
    let mut head = logs.lock().head();
    let mut from = wanted.from;
    let mut frames = Vec::new();
    loop {
        let last = !wanted.follow || *concluded.borrow_and_update();
        head.mark_unchanged();
        from = logs.lock().frames(from, MAX_VSOCK_WRITE / 2, &mut frames)?;
        if !frames.is_empty() {
            sender.stream(&frames).await?;
            frames.clear();
        } else if last {
            return finish(&mut receiver, &mut sender).await;
        } else {
            tokio::select! {
                changed = head.changed() => changed.map_err(|_| ChannelError::Closed)?,
                changed = concluded.changed() => changed.map_err(|_| ChannelError::Closed)?,
                // A reader sends nothing: anything from it, most likely its end, closes the connection.
                () = gone(&mut receiver) => return Ok(()),
            }
        }
    }
}

async fn gone(receiver: &mut Receiver) {
    drop(receiver.receive::<Subscribe>().await);
}

/// Sends the end marker, and waits until the reader closes the connection: then it has read everything.
async fn finish(receiver: &mut Receiver, sender: &mut Sender) -> Result<(), ChannelError> {
    sender.stream(&encode_bytes(END, HOST_LIMIT)?).await?;
    sender.finish().await?;
    Ok(within(CLOSE_TIME, "the reader's end", gone(receiver)).await?)
}
