//! Port 17001: readers of the log.
//!
//! Its law: a reader costs a bounded buffer and its own time. It may lag behind until the rings have turned over, and is
//! then told how much it missed; one that takes nothing at all loses its connection after a minute. No service and no other
//! reader waits for it, and none takes the place of another kind of peer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloister_wire::frame::{HOST_LIMIT, encode_bytes};
use cloister_wire::hello::Protocol;
use cloister_wire::logs::{END, Subscribe};
use cloister_wire::ports::MAX_VSOCK_WRITE;
use tokio::sync::watch;
use tokio::time::timeout;

use super::store::Shared;
use crate::channel::{self, ChannelError, Receiver, Sender};
use crate::places::{Limits, Places};
use crate::world::{Accepted, Listen, Peer, Stream};

/// Readers at once. Of the host: a `logs -f` or two, a collector, and as many again. Of a service: one that follows and
/// one that looks something up.
const READERS: Limits = Limits { host: 8, service: 2, shared: 8 };

/// How long a reader that was sent everything may take to close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Who reads, and whether the end has come.
#[derive(Debug)]
pub struct Readers {
    places: Arc<Places>,
    concluded: watch::Sender<bool>,
    local_uids: Vec<u32>,
}

impl Readers {
    /// Nobody reads yet. Besides root, these users inside the enclave may; `proc` says which service a reader belongs to.
    #[must_use]
    pub fn new(local_uids: Vec<u32>, proc: &Path) -> Arc<Self> {
        let places = Places::new(READERS, proc);
        Arc::new(Self { places, concluded: watch::Sender::new(false), local_uids })
    }

    /// Nothing more will be written: every reader is sent the rest and its connection ends.
    pub fn conclude(&self) {
        self.concluded.send_replace(true);
    }

    /// Waits until no reader is left.
    pub async fn gone(&self) {
        self.places.empty().await;
    }

    fn may_read(&self, peer: Peer) -> bool {
        match peer {
            Peer::Host => true,
            Peer::Local { uid, .. } => uid == 0 || self.local_uids.contains(&uid),
        }
    }
}

/// Serves readers for ever.
pub async fn serve(listener: Box<dyn Listen>, logs: Shared, readers: Arc<Readers>) {
    let places = Arc::clone(&readers.places);
    let handle = move |(stream, peer): Accepted| {
        let (logs, readers) = (logs.clone(), Arc::clone(&readers));
        async move {
            if readers.may_read(peer) {
                // A reader that broke is gone; there is nobody to tell.
                read(stream, &logs, readers.concluded.subscribe()).await.unwrap_or_default();
            }
        }
    };
    channel::accept_each(listener, places, handle).await;
}

async fn read(
    stream: Box<dyn Stream>,
    logs: &Shared,
    mut concluded: watch::Receiver<bool>,
) -> Result<(), ChannelError> {
    let (mut receiver, mut sender) = channel::open(stream, Protocol::Logs).await?;
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
                // A reader only reads: whatever comes from it, its end most likely, ends the connection.
                () = gone(&mut receiver) => return Ok(()),
            }
        }
    }
}

async fn gone(receiver: &mut Receiver) {
    drop(receiver.receive::<Subscribe>().await);
}

/// Says that this was all, and waits until the reader closes: then it has read everything.
async fn finish(receiver: &mut Receiver, sender: &mut Sender) -> Result<(), ChannelError> {
    sender.stream(&encode_bytes(END, HOST_LIMIT)?).await?;
    sender.finish().await?;
    timeout(CLOSE_TIME, gone(receiver)).await.map_err(|_| ChannelError::Slow)
}
