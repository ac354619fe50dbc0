//! Full throughput: bytes go from a socket into a pipe without being copied through this process.
//!
//! Invariant: "would block" is attributed to the socket only while the pipe is empty, since a full pipe returns the same error.
//! Bytes in the pipe when the sender fails are reported with the error, never dropped. The size of a request follows the size
//! of the last result, because the kernel allocates and clears pages for everything that is requested.

use std::io;
use std::task::{Context, Poll, ready};

use cloister_wire::chunks::{self, Decoder};
use cloister_wire::frame::HEADER;
use cloister_wire::ingress::CHUNK_LIMIT;

use crate::flow::Codec;
use crate::pipes::Loan;
use cloister_net::Stream;

/// Bytes in one read from which a pipe pays off: below it, page handling costs more than a copy.
const SPLICE_THRESHOLD: usize = 16 * 1024;

/// Smallest request to a socket: the size of one vsock write.
const MIN_REQUEST: usize = 32 * 1024;

/// Largest request, and the maximum in a pipe at once: the requested capacity of a pipe.
const MAX_REQUEST: usize = 256 * 1024;

/// How many bytes the next splice requests; none while bytes arrive in small amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestSize(usize);

impl RequestSize {
    /// Copying, no splice.
    pub(crate) const NONE: Self = Self(0);

    /// Whether bytes are copied.
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Records a read of `count` bytes.
    pub(crate) const fn copied(&mut self, count: usize) {
        if count >= SPLICE_THRESHOLD {
            self.0 = MIN_REQUEST;
        }
    }

    /// Records a splice of `count` bytes. The next request is twice as large: a request that is too small costs another round
    /// and another wake-up of the receiver, as much as clearing ten pages.
    fn spliced(&mut self, count: usize) {
        self.0 = match count {
            _ if count < SPLICE_THRESHOLD / 2 => 0,
            _ => count.saturating_mul(2).clamp(MIN_REQUEST, MAX_REQUEST),
        };
    }
}

/// Result of filling a pipe.
#[derive(Debug)]
pub(crate) enum Filled {
    /// The pipe holds the bytes that were available, possibly none at the end of a stream.
    With {
        /// How many of them are payload.
        payload: usize,
        /// The sender's error after them, if any. The kernel reports an error once, so it is kept until the bytes are
        /// delivered.
        broken: Option<io::Error>,
    },
    /// Too few bytes for a pipe: nothing was read.
    Trickle,
}

/// Fills an empty pipe from `from`, wrapping or unwrapping the bytes. Pending only while the pipe is empty.
pub(crate) fn poll_fill(
    codec: &mut Codec,
    request: &mut RequestSize,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Loan,
) -> Poll<Filled> {
    match codec {
        Codec::Wrap(owed) => {
            let mut payload = 0;
            let broken = wrap(owed, &mut payload, from, pipe).err();
            request.spliced(payload);
            let trickle = pipe.inside() == 0 && broken.is_none();
            Poll::Ready(if trickle { Filled::Trickle } else { Filled::With { payload, broken } })
        }
        Codec::Unwrap(decoder) => {
            let broken = ready!(poll_unwrap(decoder, cx, from, pipe)).err();
            request.spliced(pipe.inside());
            Poll::Ready(Filled::With { payload: pipe.inside(), broken })
        }
    }
}

/// Reads as many whole chunks as the sender has ready, so that their lengths are known before they are read.
fn wrap(owed: &mut usize, payload: &mut usize, from: &Stream, pipe: &mut Loan) -> io::Result<()> {
    loop {
        if *owed == 0 {
            let count = from.readable().unwrap_or(0).min(CHUNK_LIMIT);
            let space = MAX_REQUEST.saturating_sub(pipe.inside()).saturating_sub(HEADER);
            if count == 0 || count > space || !put_header(pipe, count)? {
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

/// Writes a chunk's length into the pipe, unless the pipe is full.
fn put_header(pipe: &mut Loan, count: usize) -> io::Result<bool> {
    match rustix::io::write(pipe.writer()?, &chunks::header(count)?) {
        Ok(written) => {
            pipe.filled(written);
            Ok(true)
        }
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Moves the payload of all chunks that have arrived. Pending only while the pipe is empty.
fn poll_unwrap(
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Loan,
) -> Poll<io::Result<()>> {
    while !(decoder.ended() || decoder.broken()) && MAX_REQUEST.saturating_sub(pipe.inside()) >= CHUNK_LIMIT {
        match poll_unwrap_piece(decoder, cx, from, pipe) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending if pipe.inside() > 0 => break,
            other => return other,
        }
    }
    Poll::Ready(Ok(()))
}

/// Reads a chunk's length, or moves the part of its payload that has arrived.
fn poll_unwrap_piece(
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
    from: &Stream,
    pipe: &mut Loan,
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

/// Adds to a pipe that holds bytes. If nothing was added, either end may be the cause, so readiness stays as it is.
fn try_more(from: &Stream, pipe: &Loan, max: usize) -> Poll<io::Result<usize>> {
    match from.try_splice_to(pipe.writer()?, max) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_size_follows_the_size_of_the_last_results() {
        let mut request = RequestSize::NONE;
        request.copied(100);
        assert!(request.is_none());
        request.copied(SPLICE_THRESHOLD);
        let first = request.0;
        assert!(first > 0);
        // While every request is filled, requests grow up to a limit.
        for _ in 0..20 {
            request.spliced(request.0);
        }
        let most = request.0;
        request.spliced(most);
        assert!(most > first && request.0 == most);
        // After a smaller result the next request is larger than the result and smaller than before.
        request.spliced(most / 4);
        assert!((most / 4 + 1..most).contains(&request.0));
        request.spliced(10);
        assert!(request.is_none());
    }
}
