//! The channel to init.
//!
//! Invariant: it handles only frames and the ownership of descriptors; the meaning of messages is handled elsewhere.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cloister_net::channel::{ChannelError, Limits, Receiver};
use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_wire::frame::{self, FrameError, HOLD_LIMIT};
use cloister_wire::hold::{FromInit, FromSupervisor};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Limits for frames from init. A welcome with sixty services fits into one read.
const LIMITS: Limits = Limits { frame: HOLD_LIMIT, read: 64 * 1024, ..Limits::HOST };

/// Queue of received messages. When it is full, init's own queue fills, which is bounded too.
const QUEUE: usize = 64;

/// Why the channel failed: without init the supervisor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The socket failed.
    #[error("the socket to init failed")]
    Io(#[from] io::Error),
    /// Init sent an invalid message.
    #[error("init sent an invalid message")]
    Frame(#[from] FrameError),
    /// Init sent fewer descriptors than a message requires.
    #[error("init sent {got} descriptors with a message that requires {wanted}")]
    Descriptors {
        /// The number that the message requires.
        wanted: usize,
        /// The number that arrived.
        got: usize,
    },
    /// Init closed its end.
    #[error("init closed the socket")]
    Closed,
}

impl From<ChannelError> for HoldError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => Self::Closed,
            ChannelError::Io(error) => Self::Io(error),
            ChannelError::Frame(error) => Self::Frame(error),
            // This channel opens without a hello, and without a time limit.
            error @ (ChannelError::Hello(_) | ChannelError::Late(_)) => Self::Io(io::Error::other(error)),
        }
    }
}

/// A message and its descriptors, in order.
#[derive(Debug)]
pub struct Incoming {
    /// The message.
    pub message: FromInit,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

/// A frame and the descriptors that are sent with it.
type Outgoing = (Vec<u8>, Vec<OwnedFd>);

impl Incoming {
    /// The holding that the message is about, if any.
    #[must_use]
    pub fn about(&self) -> Option<&str> {
        match &self.message {
            FromInit::Spawned { name, .. }
            | FromInit::SpawnFailed { name, .. }
            | FromInit::Emptied { name } => Some(name),
            FromInit::Exited(ended) => Some(&ended.name),
            FromInit::Welcome(_)
            | FromInit::RootMounted { .. }
            | FromInit::Stashed { .. }
            | FromInit::StopRequested { .. } => None,
        }
    }
}

/// The queue of messages to init. Clones share it.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::UnboundedSender<Outgoing>);

impl Outbox {
    /// Queues a message with its descriptors. If the channel has failed, the message is dropped, and
    /// [`Hold::receive`] returns the error.
    pub fn send_with(&self, message: &FromSupervisor, fds: Vec<OwnedFd>) -> Result<(), FrameError> {
        self.0.send((frame::encode(message, HOLD_LIMIT)?, fds)).unwrap_or_default();
        Ok(())
    }
}

/// The supervisor's end of the channel.
#[derive(Debug)]
pub struct Hold {
    outgoing: Outbox,
    incoming: mpsc::Receiver<Result<Incoming, HoldError>>,
}

impl Hold {
    /// Starts a task that serves `socket`.
    pub fn new(socket: StdStream) -> Result<Self, HoldError> {
        socket.set_nonblocking(true)?;
        let stream = UnixStream::from_std(socket)?;
        // Unbounded, because decisions must be sent; it is filled by the launcher, with a few messages for each event.
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let (received, incoming) = mpsc::channel(QUEUE);
        drop(tokio::spawn(converse(stream, to_send, received)));
        Ok(Self { outgoing: Outbox(outgoing), incoming })
    }

    /// Queues a message. If the channel has failed, it is dropped, and [`Self::receive`] returns the error.
    pub fn send(&self, message: &FromSupervisor) -> Result<(), FrameError> {
        self.send_with(message, Vec::new())
    }

    /// The same, with the message's descriptors.
    pub fn send_with(&self, message: &FromSupervisor, fds: Vec<OwnedFd>) -> Result<(), FrameError> {
        self.outgoing.send_with(message, fds)
    }

    /// A handle with which other parts of the supervisor can queue messages.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outgoing.clone()
    }

    /// The next message. Cancelling the wait loses nothing.
    pub async fn receive(&mut self) -> Result<Incoming, HoldError> {
        self.incoming.recv().await.unwrap_or(Err(HoldError::Closed))
    }
}

async fn converse(
    stream: UnixStream,
    mut to_send: mpsc::UnboundedReceiver<Outgoing>,
    received: mpsc::Sender<Result<Incoming, HoldError>>,
) {
    let reading = read(&stream, &received);
    let writing = write(&stream, &mut to_send);
    let end = tokio::select! {
        end = reading => end,
        end = writing => end,
    };
    if let Err(error) = end {
        received.send(Err(error)).await.unwrap_or_default();
    }
}

async fn write(
    stream: &UnixStream,
    to_send: &mut mpsc::UnboundedReceiver<Outgoing>,
) -> Result<(), HoldError> {
    while let Some((frame, fds)) = to_send.recv().await {
        let mut rest = frame.as_slice();
        // Descriptors are sent with the first byte.
        let mut fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_io(Interest::WRITABLE, || send_with_fds(stream, rest, &fds)) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fds.clear();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn read(
    stream: &UnixStream,
    received: &mpsc::Sender<Result<Incoming, HoldError>>,
) -> Result<(), HoldError> {
    let mut frames = Receiver::new(WithDescriptors { stream, fds: VecDeque::new() }, LIMITS);
    loop {
        let message = frames.receive().await?;
        let incoming = claim(message, &mut frames.stream_mut().fds)?;
        if received.send(Ok(incoming)).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads bytes, and collects the descriptors that arrive with them.
struct WithDescriptors<'a> {
    stream: &'a UnixStream,
    fds: VecDeque<OwnedFd>,
}

impl AsyncRead for WithDescriptors<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let stream = self.stream;
            let buffer = into.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || recv_with_fds(stream, buffer)) {
                Ok((count, more)) => {
                    self.fds.extend(more);
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Takes a message's descriptors from `fds`. They came with its first byte, so all have arrived.
fn claim(message: FromInit, fds: &mut VecDeque<OwnedFd>) -> Result<Incoming, HoldError> {
    let wanted = match &message {
        FromInit::Welcome(welcome) => {
            let held: usize = welcome.held.iter().map(|h| usize::from(h.fds)).sum();
            welcome.stash.len().saturating_add(held)
        }
        FromInit::Spawned { .. } => 2,
        FromInit::Stashed { .. } => 1,
        FromInit::SpawnFailed { .. }
        | FromInit::Exited(_)
        | FromInit::Emptied { .. }
        | FromInit::RootMounted { .. }
        | FromInit::StopRequested { .. } => 0,
    };
    if fds.len() < wanted {
        return Err(HoldError::Descriptors { wanted, got: fds.len() });
    }
    Ok(Incoming { message, fds: fds.drain(..wanted).collect() })
}
