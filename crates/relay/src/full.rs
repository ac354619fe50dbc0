//! Full flow: bytes go from a socket into a pipe without being copied through this process.
//!
//! Its law: "would block" is believed of the socket only while the pipe is empty: a full pipe says the same. Bytes that are
//! in the pipe when the sender breaks off are reported with the fault, never dropped. How much is asked follows what came
//! before, because the kernel sets aside pages for all that is asked, and clears them.

use std::io;
use std::task::{Context, Poll, ready};

use cloister_wire::chunks::{self, Decoder};
use cloister_wire::frame::HEADER;
use cloister_wire::ingress::CHUNK_LIMIT;

use crate::flow::Codec;
use crate::pipes::Lent;
use cloister_net::Stream;

/// So many bytes at once are a full flow: below it, page handling costs more than a copy.
const WORTH_A_PIPE: usize = 16 * 1024;

/// The least asked of a socket: one vsock write's worth.
const LEAST_ASKED: usize = 32 * 1024;

/// The most asked, and the most in a pipe at once: what a pipe is asked to hold.
const MOST_ASKED: usize = 256 * 1024;

/// How many bytes the next splice asks for; none while bytes come a few at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appetite(usize);

impl Appetite {
    /// No full flow.
    pub(crate) const NONE: Self = Self(0);

    /// Whether there is no full flow.
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// A read brought `count` bytes.
    pub(crate) const fn copied(&mut self, count: usize) {
        if count >= WORTH_A_PIPE {
            self.0 = LEAST_ASKED;
        }
    }

    /// A splice brought `count` bytes. Twice as much is asked next: to ask for too little costs one more round and one more
    /// wake of the receiver, ten pages' worth of clearing.
    fn spliced(&mut self, count: usize) {
        self.0 = match count {
            _ if count < WORTH_A_PIPE / 2 => 0,
            _ => count.saturating_mul(2).clamp(LEAST_ASKED, MOST_ASKED),
        };
    }
}

/// What a fill came to.
#[derive(Debug)]
pub(crate) enum Filled {
    /// The pipe holds what was there, which may be nothing at the end of a stream.
    With {
        /// Bytes of it that are payload.
        payload: usize,
        /// How the sender broke off behind them, if it did. The kernel reports an error once, so it has to be kept until
        /// they are delivered.
        broken: Option<io::Error>,
    },
    /// It is not worth a pipe: nothing was taken.
    Trickle,
}

/// Fills an empty pipe from `from`, wrapping or unwrapping the bytes on the way. Pending only when nothing is inside.
pub(crate) fn poll_fill(
    codec: &mut Codec,
    appetite: &mut Appetite,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<Filled> {
    match codec {
        Codec::Wrap(owed) => {
            let mut payload = 0;
            let broken = wrap(owed, &mut payload, from, pipe).err();
            appetite.spliced(payload);
            let trickle = pipe.inside() == 0 && broken.is_none();
            Poll::Ready(if trickle { Filled::Trickle } else { Filled::With { payload, broken } })
        }
        Codec::Unwrap(decoder) => {
            let broken = ready!(poll_unwrap(decoder, cx, from, pipe)).err();
            appetite.spliced(pipe.inside());
            Poll::Ready(Filled::With { payload: pipe.inside(), broken })
        }
    }
}

/// Takes as many whole chunks as the sender has ready, so that their lengths are known before they leave it.
fn wrap(owed: &mut usize, payload: &mut usize, from: &Stream, pipe: &mut Lent) -> io::Result<()> {
    loop {
        if *owed == 0 {
            let count = from.readable().unwrap_or(0).min(CHUNK_LIMIT);
            let room = MOST_ASKED.saturating_sub(pipe.inside()).saturating_sub(HEADER);
            if count == 0 || count > room || !put_header(pipe, count)? {
                return Ok(());
            }
            *owed = count;
        }
        match from.try_splice_to(pipe.writer()?, *owed) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                pipe.filled(count);
                *payload = payload.saturating_add(count);
                *owed = owed.saturating_sub(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Puts a chunk's length into the pipe, unless that is full.
fn put_header(pipe: &mut Lent, count: usize) -> io::Result<bool> {
    match rustix::io::write(pipe.writer()?, &chunks::header(count)?) {
        Ok(written) => {
            pipe.filled(written);
            Ok(true)
        }
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Moves the payload of as many chunks as have come. Pending only when nothing is inside.
fn poll_unwrap(
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<()>> {
    while !(decoder.ended() || decoder.broken()) && MOST_ASKED.saturating_sub(pipe.inside()) >= CHUNK_LIMIT {
        match poll_unwrap_piece(decoder, cx, from, pipe) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending if pipe.inside() > 0 => break,
            other => return other,
        }
    }
    Poll::Ready(Ok(()))
}

/// Reads a chunk's length, or moves what has come of its payload.
fn poll_unwrap_piece(
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<()>> {
    let count = if decoder.left() == 0 {
        let mut header = [0; HEADER];
        let place = header.get_mut(..decoder.header_left()).unwrap_or_default();
        let count = ready!(from.poll_recv(cx, place))?;
        decoder.strip(place.get_mut(..count).unwrap_or_default())?;
        count
    } else {
        let count = if pipe.inside() == 0 {
            ready!(from.poll_splice_to(cx, pipe.writer()?, decoder.left().min(pipe.capacity())))?
        } else {
            ready!(try_more(from, pipe, decoder.left()))?
        };
        pipe.filled(count);
        decoder.passed(count);
        count
    };
    if count == 0 { Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())) } else { Poll::Ready(Ok(())) }
}

/// Adds to a pipe that holds bytes. When nothing goes in, either of the two can be why: readiness stays as it is.
fn try_more(from: &Stream, pipe: &Lent, max: usize) -> Poll<io::Result<usize>> {
    match from.try_splice_to(pipe.writer()?, max) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appetite_comes_with_eating_and_goes_with_crumbs() {
        let mut appetite = Appetite::NONE;
        appetite.copied(100);
        assert!(appetite.is_none());
        appetite.copied(WORTH_A_PIPE);
        let first = appetite.0;
        assert!(first > 0);
        // A sender that fills whatever is asked for is asked for more, up to a bound.
        for _ in 0..20 {
            appetite.spliced(appetite.0);
        }
        let most = appetite.0;
        appetite.spliced(most);
        assert!(most > first && appetite.0 == most);
        // One that brings less is asked for more than it brought, and for less than before.
        appetite.spliced(most / 4);
        assert!((most / 4 + 1..most).contains(&appetite.0));
        appetite.spliced(10);
        assert!(appetite.is_none());
    }
}
