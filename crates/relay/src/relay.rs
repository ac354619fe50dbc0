//! The relay: both directions between the boundary and a local socket, under one set of deadlines.
//!
//! Invariant: a broken connection is never forwarded as an orderly end, and bytes received before the break are never lost with
//! it. A write error in one direction stops that direction alone; the other is drained to its end within [`DRAIN`], because a
//! peer that refuses data may already have answered. Then both sides are closed as a network failure would close them
//! ([`crate::closing`]).
//!
//! ```text
//! both open ──▶ one has ended ──▶ finished
//!    │               │
//!    ├─ a read fails ┴──────────────────────────────────────▶ broken
//!    └─ a write fails ──▶ the other is drained ──(DRAIN)─▶ broken
//! ```
//!
//! All deadlines share one timer, which no byte resets: when it fires, it checks whether bytes have moved since the last time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use cloister_wire::chunks::Decoder;
use cloister_wire::ingress::Framing;
use tokio::time::{Instant, Sleep};

use crate::closing::{self, Closing};
use crate::flow::{Codec, Flow, FlowError};
use crate::pipes::Pipes;
use crate::works::Works;
use cloister_net::Stream;
use cloister_net::resources;

/// Checks per idle deadline: an idle connection is closed at most a quarter of the deadline too late.
const CHECKS: u32 = 4;

/// How long a direction may continue after the other one has failed. The remaining bytes are in buffers of a few MiB at most,
/// so this is time for a slow receiver (nginx has `lingering_time` for it), not for a sender.
const DRAIN: Duration = Duration::from_secs(30);

/// Default deadline for the first byte of a connection. Some clients connect ahead of use; one that does so for minutes can
/// reconnect.
const FIRST_BYTE: Duration = Duration::from_mins(5);

/// Default idle deadline. It is long because services set limits of their own; it only closes connections that both sides
/// have abandoned.
const IDLE: Duration = Duration::from_hours(1);

/// Options of one relayed connection.
#[derive(Debug)]
pub struct Options {
    /// The framing on the boundary, in both directions.
    pub framing: Framing,
    /// Whether to wait at the end until the other end of the boundary has closed, and to send a break there if the connection
    /// broke. Devices that end both directions at once can lose bytes in flight if the enclave closes first.
    pub closes_last: bool,
    /// Bytes sent to the local socket ahead of the payload.
    pub lead_in: Vec<u8>,
    /// Bytes sent to the boundary ahead of the payload.
    pub lead_out: Vec<u8>,
    /// Bytes already read from the boundary; they are forwarded first.
    pub early: Vec<u8>,
    /// Maximum time without a byte in either direction.
    pub idle: Duration,
    /// Maximum time until the first byte in either direction.
    pub first_byte: Duration,
}

impl Options {
    /// No leading bytes, and deadlines that only abandoned connections reach: five minutes to the first byte, one hour idle.
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
    /// The one that crosses the enclave boundary.
    Boundary,
    /// The local one.
    Local,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both directions reached an orderly end.
    Finished,
    /// No byte arrived within the deadline for the first one.
    NoData,
    /// No byte moved for the idle deadline.
    Idle,
    /// A socket failed. On the boundary, `UnexpectedEof` means that the peer is gone, `ConnectionReset` that its side of the
    /// connection broke, `InvalidData` that it does not send chunks.
    Broken {
        /// The side that failed first.
        side: Side,
        /// Its error.
        error: io::Error,
    },
}

/// Result of a relay.
#[derive(Debug)]
pub struct Outcome {
    /// Payload bytes read from the boundary.
    pub from_boundary: u64,
    /// Payload bytes read from the local socket.
    pub from_local: u64,
    /// Why it ended.
    pub end: End,
}

/// Forwards bytes both ways between `boundary` and `local` until both end. The caller then closes both by dropping them.
///
/// If this future is dropped earlier, or its process is killed, a TCP peer that has not received an end sees a reset.
pub async fn relay(boundary: &Stream, local: &Stream, works: &Works, options: Options) -> Outcome {
    // Only TCP has a reset. Other sockets refuse the option and are simply closed.
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
        let send_break = closes_last && side != Some(Side::Boundary) && both.outward.is_between_chunks();
        let local_open = side != Some(Side::Local);
        // Return a loaned pipe first. Boxed, because this path is rare and should not enlarge every connection's task.
        drop(both);
        Box::pin(closing::break_off(boundary, local, Closing { send_break, local_open })).await;
    }
    Outcome { from_boundary, from_local, end }
}

/// Both directions.
#[derive(Debug)]
struct Both {
    inward: Flow,
    outward: Flow,
    /// The first failed write: its direction has stopped.
    failed: Option<(Side, io::Error)>,
    /// Whether the caller closes both sockets as soon as both directions have ended.
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

    /// Forwards what can be forwarded, and counts it.
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
            if let Poll::Ready(Err(error)) = self.inward.poll(cx, (boundary, local), pipes, closing)
                && let Some(end) = self.settle(error, Side::Boundary)
            {
                return Poll::Ready(end);
            }
        }
        if !self.has_stopped(Side::Boundary) {
            let closing = self.closes_at_once && self.inward.ended();
            if let Poll::Ready(Err(error)) = self.outward.poll(cx, (local, boundary), pipes, closing)
                && let Some(end) = self.settle(error, Side::Local)
            {
                return Poll::Ready(end);
            }
        }
        self.poll_end(cx, boundary)
    }

    /// Whether the direction towards this side has stopped because a write to it failed.
    fn has_stopped(&self, to: Side) -> bool {
        self.failed.as_ref().is_some_and(|(side, _)| *side == to)
    }

    /// Handles an error of the direction that comes `from` a side. It ends the relay unless the other direction can still be
    /// drained.
    fn settle(&mut self, error: FlowError, from: Side) -> Option<End> {
        let (to, back) = match from {
            Side::Boundary => (Side::Local, &mut self.outward),
            Side::Local => (Side::Boundary, &mut self.inward),
        };
        let (side, error) = match error {
            FlowError::From(error) => (from, error),
            FlowError::To(error) => (to, error),
        };
        // A side that cannot be read is gone, and so is one that refuses data and has already ended its own direction.
        let last = side == from || back.ended() || self.failed.is_some();
        // TCP reports `EPIPE` if the reset followed an end, else the error that broke the connection (`tcp_reset` of Linux).
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

    /// Whether the relay is complete.
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
            // Anything after the last chunk while this side still sends means that the peer no longer reads.
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
    interval: Duration,
    seen: u64,
    idle_checks: u32,
    /// Whether the timer is set for a write that has to be retried.
    retrying: bool,
    /// Deadline for the direction that continues alone after an error.
    drained_by: Option<Instant>,
}

impl Watch {
    fn new(options: &Options) -> Self {
        Self { interval: options.idle / CHECKS, seen: 0, idle_checks: 0, retrying: false, drained_by: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, both: &mut Both) -> Poll<End> {
        if both.failed.is_some() && self.drained_by.is_none() {
            let by = Instant::now() + DRAIN;
            self.drained_by = Some(by);
            sleep.as_mut().reset(by);
        }
        if both.starved() && !self.retrying {
            self.retrying = true;
            sleep.as_mut().reset(Instant::now() + resources::PAUSE);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.drained_by.is_some_and(|by| by <= now)
                && let Some((side, error)) = both.failed.take()
            {
                return Poll::Ready(End::Broken { side, error });
            }
            let next = now + self.interval;
            sleep.as_mut().reset(self.drained_by.map_or(next, |by| by.min(next)));
            if std::mem::take(&mut self.retrying) {
                cx.waker().wake_by_ref();
            } else if self.drained_by.is_none()
                && let Some(end) = self.check(both.carried())
            {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }

    /// Compares the byte count with that of the last check.
    fn check(&mut self, carried: u64) -> Option<End> {
        if carried == 0 {
            return Some(End::NoData);
        }
        self.idle_checks = if carried == self.seen { self.idle_checks.saturating_add(1) } else { 0 };
        self.seen = carried;
        (self.idle_checks >= CHECKS).then_some(End::Idle)
    }
}

#[cfg(test)]
mod tests;
