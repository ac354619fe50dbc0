//! The relay: both directions between the boundary and a socket of this machine, under one set of deadlines.
//!
//! Its law: what broke off is never passed on as an orderly end, and what was said before the break is never lost with it. A
//! fault in one direction stops that direction alone; the other is drained to its end, within [`DRAIN`], since a peer that
//! refuses what it is sent may have answered already. Then both sides are closed as a network would ([`crate::closing`]).
//!
//! ```text
//! both move ──▶ one has ended ──▶ finished
//!    │               │
//!    ├─ a read fails ┴──────────────────────────────────────▶ broken
//!    └─ a write fails ──▶ the other one is drained ──(DRAIN)─▶ broken
//! ```
//!
//! Deadlines are one timer, and no byte touches it: when it fires it looks whether bytes have moved since the last time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use cloister_wire::chunks::Decoder;
use cloister_wire::ingress::Framing;
use tokio::time::{Instant, Sleep};

use crate::closing::{self, Closing};
use crate::flow::{Codec, Fault, Flow};
use crate::pipes::Pipes;
use crate::works::Works;
use cloister_net::Stream;
use cloister_net::means;

/// Looks at an idle connection in one idle deadline: it ends at most a quarter too late.
const LOOKS: u32 = 4;

/// How long a direction may go on after the other one has failed. What is left of it lies in buffers of at most a few MiB,
/// so this is time for a slow receiver (as nginx gives it, `lingering_time`), not for a sender.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a connection may stay without its first byte, where nobody says otherwise. Clients that connect ahead of
/// their need exist; ones that do so for minutes know how to connect again.
const FIRST_BYTE: Duration = Duration::from_mins(5);

/// How long a connection may stay without any byte, where nobody says otherwise. Long, as services set limits of their
/// own: it ends only what both sides have forgotten.
const IDLE: Duration = Duration::from_hours(1);

/// How a connection is to be carried.
#[derive(Debug)]
pub struct Options {
    /// What the boundary carries, in both directions.
    pub framing: Framing,
    /// Whether to wait, when all is done, until the other end of the boundary has closed, and to say there that a connection
    /// broke off. Devices that end both directions at once can lose what is still on its way when the enclave closes first.
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
    /// A socket failed. `UnexpectedEof`, `ConnectionReset` and `InvalidData` on the boundary: the peer is gone, says that its
    /// side broke off, or does not speak in chunks.
    Broken {
        /// Which, first.
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
///
/// Where this future is dropped before, or its process is killed, a TCP peer that has not got an end yet sees a reset.
pub async fn relay(boundary: &Stream, local: &Stream, works: &Works, options: Options) -> Outcome {
    // Only TCP has a reset. Another socket refuses this, and closing it is all there is.
    drop(local.reset_on_close());
    let closes_last = options.closes_last;
    let mut watch = Watch::new(&options);
    let mut sleep = pin!(tokio::time::sleep(options.first_byte));
    let (mut both, begun) = Both::new(options);
    works.count(both.inward.carried(), 0);
    let end = match begun {
        Ok(()) => {
            poll_fn(|cx| match both.poll_counted(cx, boundary, local, works) {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending => watch.poll(cx, sleep.as_mut(), &mut both),
            })
            .await
        }
        Err(error) => End::Broken { side: Side::Boundary, error },
    };
    let (from_boundary, from_local) = (both.inward.carried(), both.outward.carried());
    if matches!(end, End::Finished) {
        if closes_last {
            Box::pin(closing::wait_for_close(boundary)).await;
        }
    } else {
        let side = if let End::Broken { side, .. } = &end { Some(*side) } else { None };
        let tell = closes_last && side != Some(Side::Boundary) && both.outward.is_between_chunks();
        let local_lives = side != Some(Side::Local);
        // A pipe that is lent goes back first. The rest is rare, and not worth a place in every connection's task.
        drop(both);
        Box::pin(closing::break_off(boundary, local, Closing { tell, local_lives })).await;
    }
    Outcome { from_boundary, from_local, end }
}

/// Both directions.
#[derive(Debug)]
struct Both {
    inward: Flow,
    outward: Flow,
    /// The write that failed first: its direction has stopped.
    failed: Option<(Side, io::Error)>,
    /// Whether both sockets are closed as soon as both directions have ended.
    closes_at_once: bool,
}

impl Both {
    fn new(options: Options) -> (Self, io::Result<()>) {
        let (unwrap, wrap) = match options.framing {
            Framing::Chunked => (Codec::Unwrap(Decoder::default()), Codec::Wrap(0)),
        };
        let mut both = Self {
            inward: Flow::new(unwrap, options.lead_in),
            outward: Flow::new(wrap, options.lead_out),
            failed: None,
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
        if !self.has_stopped(Side::Local) {
            let closing = self.closes_at_once && self.outward.ended();
            if let Poll::Ready(Err(fault)) = self.inward.poll(cx, (boundary, local), pipes, closing)
                && let Some(end) = self.settle(fault, Side::Boundary)
            {
                return Poll::Ready(end);
            }
        }
        if !self.has_stopped(Side::Boundary) {
            let closing = self.closes_at_once && self.inward.ended();
            if let Poll::Ready(Err(fault)) = self.outward.poll(cx, (local, boundary), pipes, closing)
                && let Some(end) = self.settle(fault, Side::Local)
            {
                return Poll::Ready(end);
            }
        }
        self.poll_end(cx, boundary)
    }

    /// Whether the direction towards this side has stopped, because a write to it failed.
    fn has_stopped(&self, to: Side) -> bool {
        self.failed.as_ref().is_some_and(|(side, _)| *side == to)
    }

    /// Takes a fault of the direction that comes `from` a side. That is the end, unless the other direction can still be
    /// drained.
    fn settle(&mut self, fault: Fault, from: Side) -> Option<End> {
        let (to, back) = match from {
            Side::Boundary => (Side::Local, &mut self.outward),
            Side::Local => (Side::Boundary, &mut self.inward),
        };
        let (side, error) = match fault {
            Fault::From(error) => (from, error),
            Fault::To(error) => (to, error),
        };
        // A side that cannot be read is gone, and so is one that refuses what it is sent and has said all it had to say.
        let last = side == from || back.ended() || self.failed.is_some();
        // TCP says `EPIPE` where the reset came behind an end, else what broke the connection (`tcp_reset` of Linux).
        if side == Side::Local && error.kind() != io::ErrorKind::BrokenPipe {
            back.note_reset();
        }
        let (side, error) = self.failed.take().unwrap_or((side, error));
        if last {
            return Some(End::Broken { side, error });
        }
        self.failed = Some((side, error));
        None
    }

    /// Whether there is nothing more to do.
    fn poll_end(&mut self, cx: &mut Context<'_>, boundary: &Stream) -> Poll<End> {
        if let Some((side, error)) = self.failed.take_if(|(side, _)| match side {
            Side::Local => self.outward.ended(),
            Side::Boundary => self.inward.ended(),
        }) {
            return Poll::Ready(End::Broken { side, error });
        }
        if self.inward.ended() && self.outward.ended() {
            return Poll::Ready(End::Finished);
        }
        if self.inward.ended() && self.outward.moves() && !self.has_stopped(Side::Boundary) {
            // Whatever follows the last chunk while we still speak says that we are no longer heard.
            return boundary.poll_recv(cx, &mut [0]).map(|followed| {
                let error = match followed {
                    Err(error) => error,
                    Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => io::ErrorKind::ConnectionReset.into(),
                };
                End::Broken { side: Side::Boundary, error }
            });
        }
        Poll::Pending
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
    /// When a direction that goes on alone after a fault is given up.
    drained_by: Option<Instant>,
}

impl Watch {
    fn new(options: &Options) -> Self {
        Self { look: options.idle / LOOKS, seen: 0, quiet: 0, retrying: false, drained_by: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, both: &mut Both) -> Poll<End> {
        if both.failed.is_some() && self.drained_by.is_none() {
            let by = Instant::now() + DRAIN;
            self.drained_by = Some(by);
            sleep.as_mut().reset(by);
        }
        if both.starved() && !self.retrying {
            self.retrying = true;
            sleep.as_mut().reset(Instant::now() + means::PAUSE);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.drained_by.is_some_and(|by| by <= now)
                && let Some((side, error)) = both.failed.take()
            {
                return Poll::Ready(End::Broken { side, error });
            }
            let next = now + self.look;
            sleep.as_mut().reset(self.drained_by.map_or(next, |by| by.min(next)));
            if std::mem::take(&mut self.retrying) {
                cx.waker().wake_by_ref();
            } else if self.drained_by.is_none()
                && let Some(end) = self.look(both.carried())
            {
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

#[cfg(test)]
mod tests;
