//! The relay: both directions between the boundary and a socket of this machine, under one set of deadlines.
//!
//! Its law: it ends when both directions have ended, or when the first thing goes wrong, and it says which. What broke
//! off is never passed on as an orderly end: a TCP peer sees a reset, and a chunked stream has no last chunk.
//!
//! Deadlines are one timer, and no byte touches it: when it fires it looks whether bytes have moved since the last time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use cloister_wire::ingress::Framing;
use tokio::time::{Instant, Sleep};

use crate::chunks::Decoder;
use crate::flow::{Dress, Fault, Flow};
use crate::means;
use crate::pipes::Pipes;
use crate::stream::Stream;
use crate::works::Works;

/// Looks at an idle connection in one idle deadline: it ends at most a quarter too late.
const LOOKS: u32 = 4;

/// How long the side that was dialled waits for the other to close first, when [`Options::closes_last`] is set. The
/// other has then sent and read everything, so this only runs out when it hangs.
const LINGER: Duration = Duration::from_secs(5);

/// How long a connection may stay without its first byte, where nobody says otherwise. Clients that connect ahead of
/// their need exist; ones that do so for minutes know how to connect again.
const FIRST_BYTE: Duration = Duration::from_mins(5);

/// How long a connection may stay without any byte, where nobody says otherwise. Long, as services set limits of their
/// own: it ends only what both sides have forgotten.
const IDLE: Duration = Duration::from_hours(1);

/// How a connection is to be carried.
#[derive(Debug)]
pub struct Options {
    /// What the boundary carries. [`Framing::Chunked`] puts both directions in chunks there.
    pub framing: Framing,
    /// Whether to wait, when all is done, until the other end of the boundary has closed. Devices that end both
    /// directions at once can lose what is still on its way when the enclave closes first.
    pub closes_last: bool,
    /// What goes to the local socket ahead of everything.
    pub lead_in: Vec<u8>,
    /// What goes to the boundary ahead of everything.
    pub lead_out: Vec<u8>,
    /// What has been read from the boundary already: it is carried first.
    pub early: Vec<u8>,
    /// The longest time without a byte in either direction.
    pub idle: Duration,
    /// The longest time until the first byte in either direction.
    pub first_byte: Duration,
}

impl Options {
    /// Nothing ahead, and deadlines that only forgotten connections meet: five minutes to the first byte, an hour without
    /// any.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self {
            framing,
            closes_last: false,
            lead_in: Vec::new(),
            lead_out: Vec::new(),
            early: Vec::new(),
            idle: IDLE,
            first_byte: FIRST_BYTE,
        }
    }
}

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that leads out of or into the enclave.
    Boundary,
    /// The one of this machine.
    Local,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides had said all they had to say.
    Finished,
    /// No byte came in time at all.
    Silent,
    /// No byte moved for too long.
    Idle,
    /// A socket failed. `UnexpectedEof` and `InvalidData` on the boundary: the peer broke off, or does not speak in
    /// chunks.
    Broken {
        /// Which.
        side: Side,
        /// How.
        error: io::Error,
    },
}

/// What a relay did.
#[derive(Debug)]
pub struct Outcome {
    /// Payload bytes taken from the boundary.
    pub from_boundary: u64,
    /// Payload bytes taken from the local socket.
    pub from_local: u64,
    /// Why it ended.
    pub end: End,
}

/// Carries bytes both ways between `boundary` and `local` until they end. The caller closes both then, by dropping them.
pub async fn relay(boundary: &Stream, local: &Stream, works: &Works, options: Options) -> Outcome {
    let closes_last = options.closes_last;
    let mut watch = Watch::new(&options);
    let mut sleep = pin!(tokio::time::sleep(options.first_byte));
    let (mut both, begun) = Both::new(options);
    works.count(both.inward.carried(), 0);
    let end = match begun {
        Ok(()) => {
            poll_fn(|cx| match both.poll_counted(cx, boundary, local, works) {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending => watch.poll(cx, sleep.as_mut(), &both),
            })
            .await
        }
        Err(error) => End::Broken { side: Side::Boundary, error },
    };
    if !matches!(end, End::Finished) {
        // Only TCP knows a reset. Another socket refuses this, and closing it is all there is.
        drop(local.reset_on_close());
    } else if closes_last {
        wait_for_close(boundary).await;
    }
    Outcome { from_boundary: both.inward.carried(), from_local: both.outward.carried(), end }
}

/// Both directions.
#[derive(Debug)]
struct Both {
    inward: Flow,
    outward: Flow,
    /// Whether both sockets are closed as soon as both directions have ended.
    closes_at_once: bool,
}

impl Both {
    fn new(options: Options) -> (Self, io::Result<()>) {
        let (unwrap, wrap) = match options.framing {
            Framing::Raw => (Dress::Plain, Dress::Plain),
            Framing::Chunked => (Dress::Unwrap(Decoder::default()), Dress::Wrap(0)),
        };
        let mut both = Self {
            inward: Flow::new(unwrap, options.lead_in),
            outward: Flow::new(wrap, options.lead_out),
            closes_at_once: !options.closes_last,
        };
        let begun = if options.early.is_empty() { Ok(()) } else { both.inward.begin_with(options.early) };
        (both, begun)
    }

    /// Moves what can be moved, and puts it on the meter.
    fn poll_counted(
        &mut self,
        cx: &mut Context<'_>,
        boundary: &Stream,
        local: &Stream,
        works: &Works,
    ) -> Poll<End> {
        let before = (self.inward.carried(), self.outward.carried());
        let progress = self.poll(cx, boundary, local, &works.pipes);
        let (inward, outward) = (self.inward.carried(), self.outward.carried());
        works.count(inward.saturating_sub(before.0), outward.saturating_sub(before.1));
        progress
    }

    fn poll(&mut self, cx: &mut Context<'_>, boundary: &Stream, local: &Stream, pipes: &Pipes) -> Poll<End> {
        let closing = self.closes_at_once && self.outward.ended();
        let inward = match self.inward.poll(cx, (boundary, local), pipes, closing) {
            Poll::Ready(Err(fault)) => return Poll::Ready(broken(fault, Side::Boundary, Side::Local)),
            inward => inward.is_ready(),
        };
        if self.inward.deserted() {
            return Poll::Ready(End::Finished);
        }
        let closing = self.closes_at_once && inward;
        match self.outward.poll(cx, (local, boundary), pipes, closing) {
            Poll::Ready(Err(fault)) => Poll::Ready(broken(fault, Side::Local, Side::Boundary)),
            Poll::Ready(Ok(())) if inward => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    }

    const fn carried(&self) -> u64 {
        self.inward.carried().saturating_add(self.outward.carried())
    }

    const fn starved(&self) -> bool {
        self.inward.starved() || self.outward.starved()
    }
}

/// The one timer of a relay.
#[derive(Debug)]
struct Watch {
    look: Duration,
    seen: u64,
    quiet: u32,
    /// Whether the timer is set for a write that has to be tried again.
    retrying: bool,
}

impl Watch {
    fn new(options: &Options) -> Self {
        Self { look: options.idle / LOOKS, seen: 0, quiet: 0, retrying: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, both: &Both) -> Poll<End> {
        if both.starved() && !self.retrying {
            self.retrying = true;
            sleep.as_mut().reset(Instant::now() + means::PAUSE);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            sleep.as_mut().reset(Instant::now() + self.look);
            if std::mem::take(&mut self.retrying) {
                cx.waker().wake_by_ref();
            } else if let Some(end) = self.look(both.carried()) {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }

    /// Judges what has moved since the last look.
    fn look(&mut self, carried: u64) -> Option<End> {
        if carried == 0 {
            return Some(End::Silent);
        }
        self.quiet = if carried == self.seen { self.quiet.saturating_add(1) } else { 0 };
        self.seen = carried;
        (self.quiet >= LOOKS).then_some(End::Idle)
    }
}

fn broken(fault: Fault, from: Side, to: Side) -> End {
    match fault {
        Fault::From(error) => End::Broken { side: from, error },
        Fault::To(error) => End::Broken { side: to, error },
    }
}

/// Reads until the other end has closed. What comes instead of that, or does not come, changes nothing any more.
async fn wait_for_close(boundary: &Stream) {
    let mut one = [0];
    drop(tokio::time::timeout(LINGER, boundary.recv(&mut one)).await);
}

#[cfg(test)]
mod tests;
