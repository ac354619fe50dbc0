//! Full flow: bytes go from a socket into a pipe without being copied through this process.
//!
//! Its law: "would block" is believed of the socket only while the pipe is empty: a full pipe says the same. How much is
//! asked follows what came before, because the kernel sets aside pages for all that is asked, and clears them.

use std::io;
use std::task::{Context, Poll, ready};

use cloister_wire::frame::HEADER;
use cloister_wire::ingress::CHUNK_LIMIT;

use crate::chunks::{self, Decoder};
use crate::flow::Dress;
use crate::pipes::Lent;
use crate::stream::Stream;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The pipe holds bytes; so many of them are payload.
    With(usize),
    /// The sender has ended.
    End,
    /// It is not worth a pipe: nothing was taken.
    Trickle,
}

/// Fills an empty pipe from `from`, dressing the bytes on the way. Pending only when nothing is inside.
pub(crate) fn poll_fill(
    dress: &mut Dress,
    appetite: &mut Appetite,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<Filled>> {
    match dress {
        Dress::Plain => poll_plain(appetite, cx, from, pipe),
        Dress::Wrap(owed) => Poll::Ready(wrap(owed, appetite, from, pipe)),
        Dress::Unwrap(decoder) => poll_unwrap(decoder, appetite, cx, from, pipe),
    }
}

fn poll_plain(
    appetite: &mut Appetite,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<Filled>> {
    let count = ready!(from.poll_splice_to(cx, pipe.writer()?, appetite.0.min(pipe.capacity())))?;
    pipe.filled(count);
    if count == 0 {
        return Poll::Ready(Ok(Filled::End));
    }
    appetite.spliced(count);
    Poll::Ready(Ok(Filled::With(count)))
}

/// Takes as many whole chunks as the sender has ready, so that their lengths are known before they leave it.
fn wrap(owed: &mut usize, appetite: &mut Appetite, from: &Stream, pipe: &mut Lent) -> io::Result<Filled> {
    let mut payload = 0usize;
    loop {
        if *owed == 0 {
            let count = from.readable().unwrap_or(0).min(CHUNK_LIMIT);
            let room = MOST_ASKED.saturating_sub(pipe.inside()).saturating_sub(HEADER);
            if count == 0 || count > room || !put_header(pipe, count)? {
                break;
            }
            *owed = count;
        }
        match from.try_splice_to(pipe.writer()?, *owed) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                pipe.filled(count);
                payload = payload.saturating_add(count);
                *owed = owed.saturating_sub(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    appetite.spliced(payload);
    Ok(if pipe.inside() == 0 { Filled::Trickle } else { Filled::With(payload) })
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

fn poll_unwrap(
    decoder: &mut Decoder,
    appetite: &mut Appetite,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<Filled>> {
    loop {
        let step = poll_unwrap_piece(decoder, cx, from, pipe);
        let room = MOST_ASKED.saturating_sub(pipe.inside());
        match step {
            Poll::Ready(Ok(())) if !decoder.ended() && room >= CHUNK_LIMIT => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending if pipe.inside() > 0 => {
                appetite.spliced(pipe.inside());
                return Poll::Ready(Ok(Filled::With(pipe.inside())));
            }
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(Filled::End)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Reads a chunk's length, or moves what has come of its payload.
fn poll_unwrap_piece(
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Lent,
) -> Poll<io::Result<()>> {
    if decoder.ended() {
        return Poll::Ready(Ok(()));
    }
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
        assert_eq!(appetite, Appetite(LEAST_ASKED));
        for _ in 0..10 {
            appetite.spliced(appetite.0);
        }
        assert_eq!(appetite, Appetite(MOST_ASKED));
        appetite.spliced(40_000);
        assert_eq!(appetite, Appetite(80_000));
        appetite.spliced(10);
        assert!(appetite.is_none());
    }
}
