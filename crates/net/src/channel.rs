//! A channel of frames over a stream: the hello of both ends, then messages in both directions.
//!
//! Invariant: a peer that sends nothing, sends too much or reads too slowly loses its connection and delays no other.
//! Frames and waits for the peer are limited by the [`Limits`] that the opener chooses. The messages are defined by the
//! callers.

use std::io;
use std::time::Duration;

use cloister_wire::frame::{self, Decoder, FrameError, HOST_LIMIT};
use cloister_wire::hello::{Hello, HelloError, Protocol, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::deadline::{Late, within};
use crate::stream::Stream;

/// Limits for a peer: bytes and time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum length of a frame in bytes, without its length prefix.
    pub frame: usize,
    /// Size of the read buffer of each channel in bytes.
    pub read: usize,
    /// Maximum time until the peer's hello.
    pub hello: Duration,
    /// Maximum time for the peer to send one expected message, or to accept one.
    pub message: Duration,
    /// Maximum time for the peer to accept any bytes of a stream of frames.
    pub stream: Duration,
}

impl Limits {
    /// Limits between host and enclave. A reply takes milliseconds, or seconds on a busy host: a peer that needs 30 s
    /// hangs. In a stream, many frames are already in the peer's socket buffer: a reader that takes nothing for a
    /// minute has stopped, or was stopped by its user. Requests are small, so 4 KiB are read at once.
    pub const HOST: Self = Self {
        frame: HOST_LIMIT,
        read: 4096,
        hello: Duration::from_secs(30),
        message: Duration::from_secs(30),
        stream: Duration::from_mins(1),
    };
}

/// Why a channel was closed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer sent an invalid frame, or a message is too long to send.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer uses another version or channel.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The peer took too long.
    #[error(transparent)]
    Late(#[from] Late),
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R = ReadHalf<Stream>> {
    stream: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    limits: Limits,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<W = WriteHalf<Stream>> {
    stream: W,
    limits: Limits,
}

/// Both halves of a channel over `S`.
pub type Halves<S> = (Receiver<ReadHalf<S>>, Sender<WriteHalf<S>>);

/// Sends the hello of `role` on `protocol` and reads the peer's.
///
/// # Errors
/// Those of the stream; [`ChannelError::Hello`] for a peer that uses another version or channel.
pub async fn open<S>(
    stream: S,
    protocol: Protocol,
    role: Role,
    limits: Limits,
) -> Result<Halves<S>, ChannelError>
where
    S: AsyncRead + AsyncWrite,
{
    let (mut receiver, mut sender) = without_hello(stream, limits);
    sender.send(&Hello::new(protocol, role)).await?;
    let theirs: Hello = receiver.receive_within(limits.hello, "the peer's hello").await?;
    theirs.check(protocol)?;
    Ok((receiver, sender))
}

/// A channel without a hello.
pub fn without_hello<S: AsyncRead + AsyncWrite>(stream: S, limits: Limits) -> Halves<S> {
    let (read, write) = tokio::io::split(stream);
    (Receiver::new(read, limits), Sender { stream: write, limits })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<ReadHalf<S>> {
    /// The stream itself, for what follows the last message. `None` if the halves are of different streams, or the peer has already
    /// sent more: it must wait for a reply first.
    #[must_use]
    pub fn into_stream(self, sender: Sender<WriteHalf<S>>) -> Option<S> {
        let is_whole = self.decoder.remainder().is_empty() && self.stream.is_pair_of(&sender.stream);
        is_whole.then(|| self.stream.unsplit(sender.stream))
    }
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Reads frames from `stream`, which starts without a hello.
    #[must_use]
    pub fn new(stream: R, limits: Limits) -> Self {
        Self { stream, decoder: Decoder::new(limits.frame), buffer: vec![0; limits.read], limits }
    }

    /// The next message, without a time limit. Cancel safe: no data is lost.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end of the stream. After any error the channel must be closed.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<M, ChannelError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The next message, within [`Limits::message`].
    ///
    /// # Errors
    /// As [`Self::receive`], and [`ChannelError::Late`].
    pub async fn receive_soon<M: DeserializeOwned>(&mut self) -> Result<M, ChannelError> {
        self.receive_within(self.limits.message, "the peer's message").await
    }

    /// The next message, within `limit`; `what` names it in the error.
    ///
    /// # Errors
    /// As [`Self::receive`], and [`ChannelError::Late`].
    pub async fn receive_within<M: DeserializeOwned>(
        &mut self,
        limit: Duration,
        what: &'static str,
    ) -> Result<M, ChannelError> {
        within(limit, what, self.receive()).await?
    }

    /// The body of the next frame that has arrived completely, or `None` until [`Self::fill`] has read more.
    ///
    /// # Errors
    /// If it exceeds the frame limit.
    pub fn arrived(&mut self) -> Result<Option<&[u8]>, ChannelError> {
        Ok(self.decoder.next_frame()?)
    }

    /// Waits for bytes and reads those available. Cancel safe: no data is lost.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end of the stream, and those of the stream.
    pub async fn fill(&mut self) -> Result<(), ChannelError> {
        let read = self.stream.read(&mut self.buffer).await?;
        if read == 0 {
            return Err(ChannelError::Closed);
        }
        self.decoder.push(self.buffer.get(..read).unwrap_or_default());
        Ok(())
    }

    /// The underlying stream.
    pub const fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError::Late`] if the peer does not accept it, [`ChannelError::Frame`] if it is too long, in which case
    /// nothing was sent.
    pub async fn send<M: Serialize>(&mut self, message: &M) -> Result<(), ChannelError> {
        self.send_encoded(&frame::encode(message, self.limits.frame)?).await
    }

    /// Sends a message that is already encoded as a frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_encoded(&mut self, frame: &[u8]) -> Result<(), ChannelError> {
        Ok(within(self.limits.message, "sending a message", self.stream.write_all(frame)).await??)
    }

    /// Sends encoded frames of a stream.
    ///
    /// # Errors
    /// [`ChannelError::Late`] if the peer does not accept them within [`Limits::stream`].
    pub async fn stream(&mut self, frames: &[u8]) -> Result<(), ChannelError> {
        Ok(within(self.limits.stream, "sending a stream", self.stream.write_all(frames)).await??)
    }

    /// Ends this direction of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn finish(&mut self) -> Result<(), ChannelError> {
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const TEST: Limits = Limits { frame: 64, ..Limits::HOST };

    #[tokio::test]
    async fn both_ends_exchange_hellos_and_then_messages() {
        let (host, guest) = tokio::io::duplex(1024);
        let (host, guest) = tokio::join!(
            open(host, Protocol::Control, Role::Host, TEST),
            open(guest, Protocol::Control, Role::Guest, TEST)
        );
        let ((mut receiver, _host), (_guest, mut sender)) = (host.unwrap(), guest.unwrap());
        sender.send(&"one").await.unwrap();
        sender.stream(&frame::encode(&"two", 64).unwrap()).await.unwrap();
        assert_eq!(receiver.receive::<String>().await.unwrap(), "one");
        assert_eq!(receiver.receive_soon::<String>().await.unwrap(), "two");
        sender.finish().await.unwrap();
        assert!(matches!(receiver.receive::<String>().await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn a_peer_of_another_channel_is_refused() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (ours, _) = tokio::join!(
            open(ours, Protocol::Control, Role::Host, TEST),
            open(theirs, Protocol::Logs, Role::Guest, TEST)
        );
        assert!(matches!(ours, Err(ChannelError::Hello(HelloError::Protocol { .. }))));
    }

    #[tokio::test]
    async fn frames_that_arrived_together_are_read_one_by_one() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"\0\0\0\x01a\0\0\0\0\0\0\0\x02b").await.unwrap();
        let mut receiver = Receiver::new(ours, TEST);
        assert_eq!(receiver.arrived().unwrap(), None);
        receiver.fill().await.unwrap();
        assert_eq!(receiver.arrived().unwrap(), Some(&b"a"[..]));
        assert_eq!(receiver.arrived().unwrap(), Some(&b""[..]));
        assert_eq!(receiver.arrived().unwrap(), None, "an incomplete frame");
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_neither_sent_nor_read() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut receiver, mut sender) = without_hello(ours, TEST);
        assert!(matches!(sender.send(&"x".repeat(64)).await, Err(ChannelError::Frame(_))));
        theirs.write_all(&65_u32.to_be_bytes()).await.unwrap();
        assert!(matches!(receiver.receive::<String>().await, Err(ChannelError::Frame(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_hello_is_accepted_and_a_missing_one_times_out() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let opening = tokio::spawn(open(ours, Protocol::Control, Role::Guest, TEST));
        sleep(Duration::from_secs(20)).await;
        let _theirs = open(theirs, Protocol::Control, Role::Host, TEST).await.unwrap();
        opening.await.unwrap().unwrap();
        let (ours, _silent) = tokio::io::duplex(1024);
        let began = Instant::now();
        let error = open(ours, Protocol::Control, Role::Guest, TEST).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer's hello took longer than 30s");
        assert_eq!(began.elapsed(), TEST.hello);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_loses_its_connection() {
        let (ours, _theirs) = tokio::io::duplex(32);
        let (_, mut sender) = without_hello(ours, TEST);
        sender.stream(&[0; 32]).await.unwrap();
        let began = Instant::now();
        assert!(matches!(sender.stream(&[0; 32]).await, Err(ChannelError::Late(_))));
        assert_eq!(began.elapsed(), TEST.stream);
        assert!(matches!(sender.send(&1).await, Err(ChannelError::Late(_))));
        assert_eq!(began.elapsed(), TEST.stream + TEST.message);
    }
}
