//! One direction of a relay: bytes from one stream to another, and then their end.
//!
//! Its law: nothing is fetched before what was fetched is delivered, so a slow receiver slows its sender and memory stays
//! bounded; and what was fetched before the sender broke off is delivered before the fault is reported. Bytes that come a
//! few at a time are copied through the thread's scratch buffer, which takes the fewest system calls; a full flow goes
//! through a pipe ([`crate::full`]). A flow that waits for bytes holds no pipe.
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

use crate::full::{self, Appetite, Filled};
use crate::pipes::{Lent, Pipes};
use cloister_net::Stream;
use cloister_net::means;
use cloister_net::scratch;

/// Payload bytes after which other connections get their turn: a millisecond or two of work.
const TURN: u64 = 256 * 1024;

/// What went wrong, by the stream it went wrong on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Where the bytes come from.
    From(io::Error),
    /// Where they go.
    To(io::Error),
}

/// What happens to the bytes on their way.
#[derive(Debug)]
pub(crate) enum Codec {
    /// They leave in chunks. The number is what is still owed to a chunk whose length is on its way already.
    Wrap(usize),
    /// They come in chunks and leave without.
    Unwrap(Decoder),
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    codec: Codec,
    stage: Stage,
    /// What goes ahead of everything, with the first bytes if those are there.
    lead: Vec<u8>,
    /// What the receiver had no room for.
    held: Vec<u8>,
    pipe: Option<Lent>,
    appetite: Appetite,
    starved: bool,
    /// How the sender broke off, while bytes of it are still to be delivered.
    broken: Option<io::Error>,
    /// Whether the sender is known to have been reset: an end read from it now is none.
    sender_was_reset: bool,
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    Ending,
    Ended,
}

impl Flow {
    /// A direction that has carried nothing yet. `lead` goes ahead of the payload, as it is.
    pub(crate) fn new(codec: Codec, lead: Vec<u8>) -> Self {
        // Chunks are unwrapped where they were read, with nothing in front of them: then the lead goes alone.
        let (lead, held) =
            if matches!(codec, Codec::Unwrap(_)) { (Vec::new(), lead) } else { (lead, Vec::new()) };
        Self {
            codec,
            stage: Stage::Moving,
            lead,
            held,
            pipe: None,
            appetite: Appetite::NONE,
            starved: false,
            broken: None,
            sender_was_reset: false,
            carried: 0,
        }
    }

    /// Takes bytes that came from the sender before the relay began.
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

    /// Whether the end has been passed on.
    pub(crate) fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether the sender has not ended yet.
    pub(crate) fn moves(&self) -> bool {
        self.stage == Stage::Moving
    }

    /// Payload bytes taken from the sender so far.
    pub(crate) const fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether the kernel lacked the means for a write. No readiness comes for that: it has to be tried again.
    pub(crate) const fn starved(&self) -> bool {
        self.starved
    }

    /// Notes that a write to the sender met a reset. The kernel reports that once: when what had come before it is read, an
    /// orderly end seems to follow (`tcp_recvmsg_locked` of Linux, where the error has been taken).
    pub(crate) const fn note_reset(&mut self) {
        self.sender_was_reset = true;
    }

    /// Whether everything that was fetched has been delivered, in whole chunks: a break can be said behind it.
    pub(crate) fn is_between_chunks(&self) -> bool {
        matches!(self.codec, Codec::Wrap(0))
            && self.lead.is_empty()
            && self.held.is_empty()
            && self.pipe.as_ref().is_none_or(|pipe| pipe.inside() == 0)
    }

    /// Moves what can be moved now. Ready when the end has been passed on.
    ///
    /// Where `closing`, the caller closes `to` as soon as this is ready, which says more than a half-close.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        pipes: &Pipes,
        closing: bool,
    ) -> Poll<Result<(), Fault>> {
        self.starved = false;
        let turn = self.carried.saturating_add(TURN);
        while self.carried < turn {
            ready!(self.poll_deliver(cx, to)).map_err(Fault::To)?;
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(Fault::From(error)));
            }
            match self.stage {
                Stage::Moving => ready!(self.poll_fetch(cx, from, to, pipes))?,
                Stage::Ending => self.pass_end(to, closing).map_err(Fault::To)?,
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is at hand. Ready when that is nothing.
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
                    Err(error) if means::are_lacking(&error) => {
                        self.starved = true;
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Fetches bytes into the pipe, or copies them on.
    fn poll_fetch(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        pipes: &Pipes,
    ) -> Poll<Result<(), Fault>> {
        let kept = self.pipe.take();
        let full = !self.appetite.is_none() && self.lead.is_empty();
        if let Some(mut pipe) = full.then(|| kept.or_else(|| pipes.lend())).flatten() {
            match ready!(full::poll_fill(&mut self.codec, &mut self.appetite, cx, from, &mut pipe)) {
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

    /// Reads once through `buffer` and writes it on. What the receiver does not take is held.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Fault>> {
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
                let received = received.map_err(Fault::From)?;
                self.recode(buffer, lead, received).map_err(Fault::From)?
            }
        };
        self.lead = Vec::new();
        let out = buffer.get(out).unwrap_or_default();
        let sent = self.push(cx, to, out).map_err(Fault::To)?;
        self.held.extend_from_slice(out.get(sent..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }

    /// Puts the lead at the front of `buffer` and returns its length. One for which there is no room goes alone.
    fn put_lead(&mut self, buffer: &mut [u8]) -> usize {
        let room = buffer.len().saturating_sub(HEADER.saturating_add(CHUNK_LIMIT));
        match buffer.get_mut(..self.lead.len()).filter(|place| place.len() <= room) {
            Some(place) => place.copy_from_slice(&self.lead),
            None => self.held = std::mem::take(&mut self.lead),
        }
        self.lead.len()
    }

    /// Wraps or unwraps `count` bytes that lie in `buffer` behind the lead, where 0 is the end. Returns what is to be sent.
    fn recode(&mut self, buffer: &mut [u8], lead: usize, count: usize) -> io::Result<Range<usize>> {
        self.appetite.copied(count);
        let behind = lead.saturating_add(count);
        match (&mut self.codec, count) {
            (Codec::Wrap(0), 0) if self.sender_was_reset => Err(io::ErrorKind::ConnectionReset.into()),
            (Codec::Wrap(0), 0) => {
                self.stage = Stage::Ending;
                write_at(buffer, lead, chunks::END);
                Ok(0..lead.saturating_add(HEADER))
            }
            (Codec::Wrap(_) | Codec::Unwrap(_), 0) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Codec::Wrap(0), _) => {
                write_at(buffer, lead, chunks::header(count)?);
                self.count(count);
                Ok(0..behind.saturating_add(HEADER))
            }
            (Codec::Wrap(owed), _) => {
                *owed = owed.saturating_sub(count);
                self.count(count);
                Ok(0..behind)
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
            Codec::Unwrap(decoder) if decoder.ended() => self.stage = Stage::Ending,
            Codec::Unwrap(_) | Codec::Wrap(_) => {}
        }
    }

    /// Writes until the receiver has no more room, and returns how much it took.
    fn push(&mut self, cx: &mut Context<'_>, to: &Stream, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0usize;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match to.poll_send(cx, rest) {
                Poll::Ready(Ok(count)) => sent = sent.saturating_add(count),
                Poll::Ready(Err(error)) if means::are_lacking(&error) => {
                    self.starved = true;
                    break;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(sent)
    }

    fn pass_end(&mut self, to: &Stream, closing: bool) -> io::Result<()> {
        self.stage = Stage::Ended;
        self.pipe = None;
        if matches!(self.codec, Codec::Wrap(_)) {
            // The last chunk has been written.
            return Ok(());
        }
        // The receiver has everything: from now on a close, even that of a killed process, takes nothing from it.
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
