//! The development security module from inside: what `/dev/nsm` is on AWS Nitro, over a stream to the sleeve.
//!
//! Invariant: it exists on the platform `virtual` only. One request at a time; each is answered within a limit or ends the
//! connection, since a stream whose response is missing can never be in step again. The format is `cloister_wire::module`'s, and the
//! bytes are not interpreted here.
//!
//! It waits with poll(2) and reads and writes without blocking, so that a limit holds for a whole request however the bytes arrive,
//! and it does not matter in which mode the stream is.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloister_wire::frame::{self, Decoder};
use cloister_wire::hello::{Hello, Protocol, Role};
use cloister_wire::module::{REQUEST_LIMIT, RESPONSE_LIMIT, request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// The platform's name, as init reports it. On all others there is hardware, and the host must not be able to take its place.
const PLATFORM: &str = "virtual";

/// Time limit for the hellos: the sleeve sends its own as soon as it has connected. The same as the sleeve's.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// Time limit for a request. The module takes milliseconds, but the first request waits until the sleeve has hashed the image:
/// 4 GiB, twice, take 20 s on a slow host.
const RESPONSE_TIME: Duration = Duration::from_mins(1);

const _: () = assert!(
    REQUEST_LIMIT == crate::REQUEST_LIMIT && RESPONSE_LIMIT == crate::RESPONSE_LIMIT,
    "the channel has the limits of the device"
);

/// Bytes that are read at once: one of these is enough for most responses, and three for the longest.
const PIECE: usize = 4096;

/// A connection to the module, with the interface of the device (`Nsm` in `cloister-sys`): [`Channel::exchange`] is what
/// [`Module::over`](crate::Module::over) takes.
#[derive(Debug)]
pub struct Channel {
    /// `None` after an error: the stream is closed, so that the sleeve connects again.
    open: Mutex<Option<Open>>,
    limit: Duration,
}

struct Open {
    stream: OwnedFd,
    decoder: Decoder,
}

impl Channel {
    /// Exchanges the hellos on a stream that the sleeve has connected to port 17004. `platform` is the name of the one that init has
    /// detected.
    ///
    /// # Errors
    /// `Unsupported` on any other platform than `virtual`. `TimedOut` after 5 s, `InvalidData` for a peer that is not a sleeve of
    /// this version, `UnexpectedEof` and those of the stream.
    pub fn open(stream: OwnedFd, platform: &str) -> io::Result<Self> {
        Self::open_within(stream, platform, HELLO_TIME, RESPONSE_TIME)
    }

    fn open_within(stream: OwnedFd, platform: &str, hello: Duration, limit: Duration) -> io::Result<Self> {
        if platform != PLATFORM {
            let text = format!("{platform} has hardware in place of the development security module");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let mut open = Open { stream, decoder: Decoder::new(RESPONSE_LIMIT) };
        let ours = Hello::new(Protocol::SecurityModule, Role::Guest);
        let theirs = open.exchange(&frame::encode(&ours, REQUEST_LIMIT).map_err(invalid)?, hello)?;
        let theirs: Hello = frame::decode(&theirs).map_err(invalid)?;
        theirs.check(Protocol::SecurityModule).map_err(invalid)?;
        Ok(Self { open: Mutex::new(Some(open)), limit })
    }

    /// Sends a request of at most 4096 bytes and returns the response of at most 12288 bytes. Callers on several threads wait for
    /// each other.
    ///
    /// # Errors
    /// `InvalidInput` for a longer request, which is not sent. After any other error the connection is closed, and all further
    /// requests fail with `NotConnected`: `TimedOut` after a minute, `InvalidData` for a response that is too long or not expected,
    /// `UnexpectedEof` and those of the stream.
    pub fn exchange(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let frame = request(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut place = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // It is put back only after a success.
        let mut open = place.take().ok_or_else(closed)?;
        let response = open.exchange(&frame, self.limit)?;
        *place = Some(open);
        Ok(response)
    }
}

impl Open {
    /// Sends a frame, and returns the body of the next one that arrives.
    fn exchange(&mut self, frame: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now().checked_add(limit).ok_or(io::ErrorKind::InvalidInput)?;
        let mut rest = frame;
        while !rest.is_empty() {
            let sent = self.until(deadline, PollFlags::OUT, |stream| {
                send(stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            })?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        let mut piece = [0; PIECE];
        let body = loop {
            if let Some(body) = self.decoder.next_frame().map_err(invalid)? {
                break body.to_vec();
            }
            let (_, count) = self.until(deadline, PollFlags::IN, |stream| {
                recv(stream, piece.as_mut_slice(), RecvFlags::DONTWAIT)
            })?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(piece.get(..count).unwrap_or_default());
        };
        if !self.decoder.remainder().is_empty() {
            return Err(invalid("bytes follow the response"));
        }
        Ok(body)
    }

    /// Tries, waiting for these events in between, until it succeeds or fails, or the deadline has passed.
    fn until<T>(
        &self,
        deadline: Instant,
        events: PollFlags,
        mut attempt: impl FnMut(&OwnedFd) -> Result<T, Errno>,
    ) -> io::Result<T> {
        loop {
            match attempt(&self.stream) {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                result => return Ok(result?),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the sleeve has not answered in time"));
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.stream, events)], Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has been received may be random bytes for a key.
        f.debug_struct("Open").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection to the sleeve was closed after an error")
}

#[cfg(test)]
mod tests;
