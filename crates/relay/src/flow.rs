//! One direction of a relay: bytes from one stream to another, and then their end.
//!
//! Invariant: nothing more is read until everything read so far has been written, so a slow receiver slows its sender and memory
//! stays bounded; and bytes read before the sender failed are delivered before the failure is reported. Small amounts are
//! copied through the thread's scratch buffer, which takes the fewest system calls; at full throughput bytes go through a pipe
//! ([`crate::full`]). A flow that waits for bytes holds no pipe.
//!
//! ```text
//! moving → ending → ended
//! ```

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use cloister_wire::chunks::{self, Decoder};
use cloister_wire::frame::HEADER;
use cloister_wire::ingress::CHUNK_LIMIT;

use crate::full::{self, Filled, RequestSize};
use crate::pipes::{Loan, Pipes};
use cloister_net::Stream;
use cloister_net::resources;
use cloister_net::scratch;

/// Payload bytes after which the task yields to other connections: one or two milliseconds of work.
const BUDGET: u64 = 256 * 1024;

/// An I/O error, by the stream it occurred on.
#[derive(Debug)]
pub(crate) enum FlowError {
    /// Reading from the sender.
    From(io::Error),
    /// Writing to the receiver.
    To(io::Error),
}

/// What the flow does to the bytes.
#[derive(Debug)]
pub(crate) enum Codec {
    /// Wrap them in chunks. The number is how many bytes are still missing from a chunk whose length has already been sent.
    Wrap(usize),
    /// Unwrap them from chunks.
    Unwrap(Decoder),
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    codec: Codec,
    state: State,
    /// Bytes that go ahead of the payload, together with the first of it where possible.
    lead: Vec<u8>,
    /// Bytes that the receiver has not accepted yet.
    held: Vec<u8>,
    pipe: Option<Loan>,
    request: RequestSize,
    starved: bool,
    /// The sender's error, while bytes read before it are still to be delivered.
    broken: Option<io::Error>,
    /// Whether the sender is known to have been reset: an end read from it now is not an orderly one.
    sender_was_reset: bool,
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    Ending,
    Ended,
}

impl Flow {
    /// A flow at its start. `lead` goes ahead of the payload, unchanged.
    pub(crate) fn new(codec: Codec, lead: Vec<u8>) -> Self {
        // Chunks are unwrapped in place, with nothing in front of them, so the lead goes on its own.
        let (lead, held) =
            if matches!(codec, Codec::Unwrap(_)) { (Vec::new(), lead) } else { (lead, Vec::new()) };
        Self {
            codec,
            state: State::Moving,
            lead,
            held,
            pipe: None,
            request: RequestSize::NONE,
            starved: false,
            broken: None,
            sender_was_reset: false,
            carried: 0,
        }
    }

    /// Accepts bytes that were read from the sender before the relay began.
    pub(crate) fn begin_with(&mut self, mut early: Vec<u8>) -> io::Result<()> {
        let payload = match &mut self.codec {
            Codec::Unwrap(decoder) => decoder.strip(&mut early)?,
            Codec::Wrap(_) => 0..early.len(),
        };
        self.count(payload.len());
        early.truncate(payload.end);
        early.drain(..payload.start);
        self.held.append(&mut self.lead);
        if self.held.is_empty() {
            self.held = early;
        } else {
            self.held.append(&mut early);
        }
        self.notice_last_chunk();
        Ok(())
    }

    /// Whether the end has been forwarded.
    pub(crate) fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the sender has not ended yet.
    pub(crate) fn moves(&self) -> bool {
        self.state == State::Moving
    }

    /// Payload bytes read from the sender so far.
    pub(crate) const fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether the kernel was out of resources for a write. No readiness event follows: it has to be retried.
    pub(crate) const fn starved(&self) -> bool {
        self.starved
    }

    /// Records that a write to the sender failed with a reset. The kernel reports that once: after the bytes received before it,
    /// a read returns what looks like an orderly end (`tcp_recvmsg_locked` of Linux, once the error has been consumed).
    pub(crate) const fn note_reset(&mut self) {
        self.sender_was_reset = true;
    }

    /// Whether everything read has been delivered, in whole chunks, so that a break can be sent after it.
    pub(crate) fn is_between_chunks(&self) -> bool {
        matches!(self.codec, Codec::Wrap(0))
            && self.lead.is_empty()
            && self.held.is_empty()
            && self.pipe.as_ref().is_none_or(|pipe| pipe.inside() == 0)
    }

    /// Forwards what can be forwarded now. Ready when the end has been forwarded.
    ///
    /// With `closing`, the caller closes `to` as soon as this is ready, which makes a half-close redundant.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        pipes: &Pipes,
        closing: bool,
    ) -> Poll<Result<(), FlowError>> {
        self.starved = false;
        let limit = self.carried.saturating_add(BUDGET);
        while self.carried < limit {
            ready!(self.poll_deliver(cx, to)).map_err(FlowError::To)?;
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(FlowError::From(error)));
            }
            match self.state {
                State::Moving => ready!(self.poll_fetch(cx, from, to, pipes))?,
                State::Ending => self.forward_end(to, closing).map_err(FlowError::To)?,
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the bytes already read. Ready when none are left.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            let sent = self.push(cx, to, &held)?;
            if sent < held.len() {
                held.drain(..sent);
                self.held = held;
                return Poll::Pending;
            }
        }
        if let Some(pipe) = &mut self.pipe {
            while pipe.inside() > 0 {
                match ready!(to.poll_splice_from(cx, pipe.reader()?, pipe.inside())) {
                    Ok(count) => pipe.drained(count),
                    Err(error) if resources::are_exhausted(&error) => {
                        self.starved = true;
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads bytes into the pipe, or copies them.
    fn poll_fetch(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        pipes: &Pipes,
    ) -> Poll<Result<(), FlowError>> {
        let current = self.pipe.take();
        let full = !self.request.is_none() && self.lead.is_empty();
        if let Some(mut pipe) = full.then(|| current.or_else(|| pipes.lend())).flatten() {
            match ready!(full::poll_fill(&mut self.codec, &mut self.request, cx, from, &mut pipe)) {
                Filled::With { payload, broken } => {
                    self.count(payload);
                    self.broken = broken;
                    self.notice_last_chunk();
                    self.pipe = Some(pipe);
                    return Poll::Ready(Ok(()));
                }
                Filled::Trickle => {}
            }
        }
        scratch::with(|buffer| self.poll_copy(cx, from, to, buffer))
    }

    /// Reads once into `buffer` and writes it. Bytes that the receiver does not accept are held.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        buffer: &mut [u8],
    ) -> Poll<Result<(), FlowError>> {
        let lead = self.put_lead(buffer);
        let (skip, most) = match self.codec {
            Codec::Unwrap(_) => (0, scratch::SIZE),
            Codec::Wrap(0) => (HEADER, CHUNK_LIMIT),
            Codec::Wrap(owed) => (0, owed),
        };
        let start = lead.saturating_add(skip);
        let end = start.saturating_add(most).min(buffer.len());
        let window = buffer.get_mut(start..end).unwrap_or_default();
        let out = match from.poll_recv(cx, window) {
            Poll::Pending if lead == 0 => return Poll::Pending,
            Poll::Pending => 0..lead,
            Poll::Ready(received) => {
                let received = received.map_err(FlowError::From)?;
                self.recode(buffer, lead, received).map_err(FlowError::From)?
            }
        };
        self.lead = Vec::new();
        let out = buffer.get(out).unwrap_or_default();
        let sent = self.push(cx, to, out).map_err(FlowError::To)?;
        self.held.extend_from_slice(out.get(sent..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }

    /// Puts the lead at the front of `buffer` and returns its length. A lead that does not fit goes on its own.
    fn put_lead(&mut self, buffer: &mut [u8]) -> usize {
        let space = buffer.len().saturating_sub(HEADER.saturating_add(CHUNK_LIMIT));
        match buffer.get_mut(..self.lead.len()).filter(|place| place.len() <= space) {
            Some(place) => place.copy_from_slice(&self.lead),
            None => self.held = std::mem::take(&mut self.lead),
        }
        self.lead.len()
    }

    /// Wraps or unwraps `count` bytes in `buffer` after the lead; 0 is the end of the stream. Returns the range to send.
    fn recode(&mut self, buffer: &mut [u8], lead: usize, count: usize) -> io::Result<Range<usize>> {
        self.request.copied(count);
        let end = lead.saturating_add(count);
        match (&mut self.codec, count) {
            (Codec::Wrap(0), 0) if self.sender_was_reset => Err(io::ErrorKind::ConnectionReset.into()),
            (Codec::Wrap(0), 0) => {
                self.state = State::Ending;
                write_at(buffer, lead, chunks::END);
                Ok(0..lead.saturating_add(HEADER))
            }
            (Codec::Wrap(_) | Codec::Unwrap(_), 0) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Codec::Wrap(0), _) => {
                write_at(buffer, lead, chunks::header(count)?);
                self.count(count);
                Ok(0..end.saturating_add(HEADER))
            }
            (Codec::Wrap(owed), _) => {
                *owed = owed.saturating_sub(count);
                self.count(count);
                Ok(0..end)
            }
            (Codec::Unwrap(decoder), _) => {
                let payload = decoder.strip(buffer.get_mut(..count).unwrap_or_default())?;
                self.count(payload.len());
                self.notice_last_chunk();
                Ok(payload)
            }
        }
    }

    fn notice_last_chunk(&mut self) {
        match &self.codec {
            Codec::Unwrap(decoder) if decoder.broken() => {
                self.broken = Some(io::ErrorKind::ConnectionReset.into());
            }
            Codec::Unwrap(decoder) if decoder.ended() => self.state = State::Ending,
            Codec::Unwrap(_) | Codec::Wrap(_) => {}
        }
    }

    /// Writes until the receiver accepts no more, and returns how much it accepted.
    fn push(&mut self, cx: &mut Context<'_>, to: &Stream, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0usize;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match to.poll_send(cx, rest) {
                Poll::Ready(Ok(count)) => sent = sent.saturating_add(count),
                Poll::Ready(Err(error)) if resources::are_exhausted(&error) => {
                    self.starved = true;
                    break;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(sent)
    }

    fn forward_end(&mut self, to: &Stream, closing: bool) -> io::Result<()> {
        self.state = State::Ended;
        self.pipe = None;
        if matches!(self.codec, Codec::Wrap(_)) {
            // The last chunk has been written.
            return Ok(());
        }
        // The receiver has everything: from now on closing, even by a killed process, loses nothing.
        drop(to.end_on_close());
        if closing { Ok(()) } else { to.end_sending() }
    }

    fn count(&mut self, bytes: usize) {
        self.carried = self.carried.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

fn write_at(buffer: &mut [u8], at: usize, header: [u8; HEADER]) {
    if let Some(place) = buffer.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER>) {
        *place = header;
    }
}
