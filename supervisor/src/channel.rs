//! A connection to the host or to a local program: hello, frames in, frames out.
//!
//! Its law: a peer that says nothing, says too much or reads too slowly loses its connection, and nobody else waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_wire::frame::{self, Decoder, FrameError, HOST_LIMIT};
use cloister_wire::hello::{Hello, HelloError, Protocol, Role};
use cloister_wire::ports::MAX_VSOCK_WRITE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use crate::places::Places;
use crate::world::{Accepted, Listen, Stream};

/// How long a peer may take for what is due: its hello, what it wants, to take one message. That is milliseconds, and seconds
/// where a host's processors are busy with other things. One that needs this long hangs; until then it holds a place that is
/// nobody else's.
const PEER_TIME: Duration = Duration::from_secs(30);

/// How long frames of a stream may take to be written, of which many lie in the peer's socket already. A reader that takes
/// nothing for this long has stopped, or a person has stopped it; one that comes back asks again from where it was.
const STREAM_TIME: Duration = Duration::from_mins(1);

/// The pause after a listener failed: it failed for want of descriptors or memory, and waiting is all there is to do.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes read at once: requests are small.
const READ_BYTES: usize = 4096;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer broke the format.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer is none of ours.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The peer took too long.
    #[error("the peer took too long")]
    Slow,
    /// The peer closed.
    #[error("the peer closed")]
    Closed,
}

/// The receiving half.
pub(crate) struct Receiver {
    stream: ReadHalf<Box<dyn Stream>>,
    decoder: Decoder,
}

/// The sending half.
pub(crate) struct Sender {
    stream: WriteHalf<Box<dyn Stream>>,
}

/// Says hello and hears the peer's.
pub(crate) async fn open(
    stream: Box<dyn Stream>,
    protocol: Protocol,
) -> Result<(Receiver, Sender), ChannelError> {
    let (read, write) = tokio::io::split(stream);
    let mut receiver = Receiver { stream: read, decoder: Decoder::new(HOST_LIMIT) };
    let mut sender = Sender { stream: write };
    sender.send(&Hello::new(protocol, Role::Guest)).await?;
    let theirs: Hello = receiver.receive_soon().await?;
    theirs.check(protocol)?;
    Ok((receiver, sender))
}

impl Receiver {
    /// The next message, however long it takes.
    pub(crate) async fn receive<M: DeserializeOwned>(&mut self) -> Result<M, ChannelError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            let mut bytes = [0; READ_BYTES];
            let read = self.stream.read(&mut bytes).await?;
            if read == 0 {
                return Err(ChannelError::Closed);
            }
            self.decoder.push(bytes.get(..read).unwrap_or_default());
        }
    }

    /// The next message, which is due.
    pub(crate) async fn receive_soon<M: DeserializeOwned>(&mut self) -> Result<M, ChannelError> {
        timeout(PEER_TIME, self.receive()).await.map_err(|_| ChannelError::Slow)?
    }
}

impl Sender {
    /// Sends one message.
    pub(crate) async fn send<M: Serialize>(&mut self, message: &M) -> Result<(), ChannelError> {
        let frame = frame::encode(message, HOST_LIMIT)?;
        timeout(PEER_TIME, self.write(&frame)).await.map_err(|_| ChannelError::Slow)?
    }

    /// Writes frames of a stream, for as long as the peer takes some of them now and then.
    pub(crate) async fn stream(&mut self, frames: &[u8]) -> Result<(), ChannelError> {
        timeout(STREAM_TIME, self.write(frames)).await.map_err(|_| ChannelError::Slow)?
    }

    /// Writes frames, in pieces that every vsock carries.
    async fn write(&mut self, frames: &[u8]) -> Result<(), ChannelError> {
        for piece in frames.chunks(MAX_VSOCK_WRITE) {
            self.stream.write_all(piece).await?;
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub(crate) async fn finish(&mut self) -> Result<(), ChannelError> {
        Ok(self.stream.shutdown().await?)
    }
}

/// Hands each connection to `handle` in a task of its own, at most as many at once as `places` has for its peer. One too
/// many is closed at once. It never returns: a listener that fails is asked again.
pub(crate) async fn accept_each<H, F>(listener: Box<dyn Listen>, places: Arc<Places>, handle: H)
where
    H: Fn(Accepted) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Err(_) => sleep(ACCEPT_PAUSE).await,
            Ok(accepted) => {
                if let Some(place) = places.enter(&accepted.1) {
                    let connection = handle(accepted);
                    drop(tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_on_a_busy_machine_may_take_its_time_and_one_that_hangs_may_not() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let opening = tokio::spawn(open(Box::new(ours), Protocol::Control));
        tokio::time::sleep(Duration::from_secs(20)).await;
        let hello = frame::encode(&Hello::new(Protocol::Control, Role::Host), HOST_LIMIT).unwrap();
        let (mut read, mut write) = tokio::io::split(theirs);
        write.write_all(&hello).await.unwrap();
        assert!(opening.await.unwrap().is_ok());
        read.read_to_end(&mut Vec::new()).await.unwrap();
        let (ours, _silent) = tokio::io::duplex(1024);
        let began = tokio::time::Instant::now();
        assert!(matches!(open(Box::new(ours), Protocol::Control).await, Err(ChannelError::Slow)));
        assert_eq!(began.elapsed(), PEER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_connection() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let ours: Box<dyn Stream> = Box::new(ours);
        let (_, write) = tokio::io::split(ours);
        let mut sender = Sender { stream: write };
        sender.stream(&[0; 1024]).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(sender.stream(&[0; 1024]).await, Err(ChannelError::Slow)));
        assert_eq!(began.elapsed(), STREAM_TIME);
        drop(theirs);
    }
}
