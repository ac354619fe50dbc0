//! One direction of a relay: bytes from one stream to another, and then their end.
//!
//! Its law: nothing is fetched before what was fetched is delivered, so a slow receiver slows its sender and memory stays
//! bounded. Bytes that come a few at a time are copied through the thread's scratch buffer, which takes the fewest system
//! calls; a full flow goes through a pipe ([`crate::full`]). Whoever waits for bytes holds no pipe.
//!
//! ```text
//! moving → ending → ended
//! ```

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use cloister_wire::frame::HEADER;
use cloister_wire::ingress::CHUNK_LIMIT;

use crate::chunks::{self, Decoder};
use crate::full::{self, Appetite, Filled};
use crate::means;
use crate::pipes::{Lent, Pipes};
use crate::scratch;
use crate::stream::Stream;

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

/// What the bytes are dressed in on their way.
#[derive(Debug)]
pub(crate) enum Dress {
    /// They leave as they came; the end is a half-close.
    Plain,
    /// They leave in chunks. The number is what is still owed to a chunk whose length is on its way already.
    Wrap(usize),
    /// They come in chunks and leave without.
    Unwrap(Decoder),
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    dress: Dress,
    stage: Stage,
    /// What goes ahead of everything, with the first bytes if those are there.
    lead: Vec<u8>,
    /// What the receiver had no room for.
    held: Vec<u8>,
    pipe: Option<Lent>,
    appetite: Appetite,
    starved: bool,
    deserted: bool,
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
    pub(crate) fn new(dress: Dress, lead: Vec<u8>) -> Self {
        // Chunks are undressed where they were read, with nothing in front of them: then the lead goes alone.
        let (lead, held) =
            if matches!(dress, Dress::Unwrap(_)) { (Vec::new(), lead) } else { (lead, Vec::new()) };
        Self {
            dress,
            stage: Stage::Moving,
            lead,
            held,
            pipe: None,
            appetite: Appetite::NONE,
            starved: false,
            deserted: false,
            carried: 0,
        }
    }

    /// Takes bytes that came from the sender before the relay began.
    pub(crate) fn begin_with(&mut self, mut early: Vec<u8>) -> io::Result<()> {
        let payload = match &mut self.dress {
            Dress::Unwrap(decoder) => decoder.strip(&mut early)?,
            Dress::Plain | Dress::Wrap(_) => 0..early.len(),
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

    /// Whether the sender was found to have closed both directions when this one ended: the caller closes both sockets,
    /// which is why the end was not passed on.
    pub(crate) const fn deserted(&self) -> bool {
        self.deserted
    }

    /// Payload bytes taken from the sender so far.
    pub(crate) const fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether the kernel lacked the means for a write. No readiness comes for that: it has to be tried again.
    pub(crate) const fn starved(&self) -> bool {
        self.starved
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
            match self.stage {
                Stage::Moving => ready!(self.poll_fetch(cx, from, to, pipes))?,
                Stage::Ending => self.pass_end(from, to, closing).map_err(Fault::To)?,
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
            let filled = full::poll_fill(&mut self.dress, &mut self.appetite, cx, from, &mut pipe);
            match ready!(filled).map_err(Fault::From)? {
                Filled::With(payload) => {
                    self.count(payload);
                    self.notice_last_chunk();
                    self.pipe = Some(pipe);
                    return Poll::Ready(Ok(()));
                }
                Filled::End => {
                    self.stage = Stage::Ending;
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
        let (skip, most) = match self.dress {
            Dress::Plain | Dress::Unwrap(_) => (0, scratch::SIZE),
            Dress::Wrap(0) => (HEADER, CHUNK_LIMIT),
            Dress::Wrap(owed) => (0, owed),
        };
        let start = lead.saturating_add(skip);
        let end = start.saturating_add(most).min(buffer.len());
        let window = buffer.get_mut(start..end).unwrap_or_default();
        let out = match from.poll_recv(cx, window) {
            Poll::Pending if lead == 0 => return Poll::Pending,
            Poll::Pending => 0..lead,
            Poll::Ready(received) => {
                let received = received.map_err(Fault::From)?;
                self.dress_up(buffer, lead, received).map_err(Fault::From)?
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

    /// Changes the clothes of `count` bytes that lie in `buffer` behind the lead, where 0 is the end. Returns what is to
    /// be sent.
    fn dress_up(&mut self, buffer: &mut [u8], lead: usize, count: usize) -> io::Result<Range<usize>> {
        self.appetite.copied(count);
        let behind = lead.saturating_add(count);
        match (&mut self.dress, count) {
            (Dress::Plain, 0) => {
                self.stage = Stage::Ending;
                Ok(0..lead)
            }
            (Dress::Wrap(0), 0) => {
                self.stage = Stage::Ending;
                write_at(buffer, lead, chunks::END);
                Ok(0..lead.saturating_add(HEADER))
            }
            (Dress::Wrap(_) | Dress::Unwrap(_), 0) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Dress::Plain, _) => {
                self.count(count);
                Ok(0..behind)
            }
            (Dress::Wrap(0), _) => {
                write_at(buffer, lead, chunks::header(count)?);
                self.count(count);
                Ok(0..behind.saturating_add(HEADER))
            }
            (Dress::Wrap(owed), _) => {
                *owed = owed.saturating_sub(count);
                self.count(count);
                Ok(0..behind)
            }
            (Dress::Unwrap(decoder), _) => {
                let payload = decoder.strip(buffer.get_mut(..count).unwrap_or_default())?;
                self.count(payload.len());
                self.notice_last_chunk();
                Ok(payload)
            }
        }
    }

    fn notice_last_chunk(&mut self) {
        if matches!(&self.dress, Dress::Unwrap(decoder) if decoder.ended()) {
            self.stage = Stage::Ending;
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

    fn pass_end(&mut self, from: &Stream, to: &Stream, closing: bool) -> io::Result<()> {
        self.stage = Stage::Ended;
        self.pipe = None;
        self.deserted = !closing && matches!(self.dress, Dress::Plain) && from.is_deserted();
        match self.dress {
            Dress::Plain | Dress::Unwrap(_) if !closing && !self.deserted => to.end_sending(),
            _ => Ok(()),
        }
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
