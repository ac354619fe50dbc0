//! The hybrid protocol of vhost-device-vsock, Firecracker and Cloud Hypervisor: a Unix socket, one line in each direction, then
//! the stream. They differ in how a stream is closed: `vhost-device-vsock` 0.3.0 does not forward a half-close.
//!
//! Invariant: a requested connection stays open until the device has replied, even if no caller is waiting for it any more.
//! `vhost-device-vsock` 0.3.0 panics when it writes its `OK` to a stream that was closed meanwhile (`vsock_conn.rs`,
//! `send_pkt`: the write's result is unwrapped), and every other connection to the enclave is lost with it; a guest that gets
//! no CPU time from a busy host replies that late.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::contract::{Pending, Stream, Transport, with_limit};

/// Maximum length of the reply in bytes: `OK `, a port of ten digits, a newline, and as much again.
const ANSWER_LIMIT: usize = 32;

/// Maximum number of connections waiting for the device's reply: a guest that is stalled uses no more descriptors than
/// these, and one that runs replies to each within milliseconds.
const UNANSWERED: usize = 128;

/// An enclave behind a device's Unix socket.
#[derive(Debug)]
pub(crate) struct Hybrid {
    socket: PathBuf,
    ready: watch::Receiver<bool>,
    unanswered: Arc<Semaphore>,
}

impl Hybrid {
    /// The enclave behind this socket. Connections are made once `ready` is true or its sender is gone.
    pub(crate) fn new(socket: PathBuf, ready: watch::Receiver<bool>) -> Self {
        Self { socket, ready, unanswered: Arc::new(Semaphore::new(UNANSWERED)) }
    }

    /// Connects in a task of its own, which continues until the device has replied even if this future is dropped.
    async fn dial(&self, port: u32) -> io::Result<Stream> {
        // An error means that the sender is gone: the device's own reply has to be sufficient.
        drop(self.ready.clone().wait_for(|ready| *ready).await);
        let slot = Arc::clone(&self.unanswered).acquire_owned().await.map_err(io::Error::other)?;
        let socket = self.socket.clone();
        let dialling = tokio::spawn(async move {
            let dialled = handshake(&socket, port).await;
            drop(slot);
            dialled
        });
        dialling.await.map_err(io::Error::other)?
    }
}

async fn handshake(socket: &Path, port: u32) -> io::Result<Stream> {
    let stream = Stream::connect_unix(socket)?;
    stream.send_all(format!("CONNECT {port}\n").as_bytes()).await?;
    match stream.recv_line(ANSWER_LIMIT).await {
        Ok(line) if line.starts_with(b"OK ") => Ok(stream),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the vsock device did not reply with OK")),
        Err(error) => Err(error),
    }
}

impl Transport for Hybrid {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        Box::pin(with_limit(self.dial(port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// An enclave whose device is ready.
    fn open(path: PathBuf) -> Hybrid {
        Hybrid::new(path, watch::channel(true).1)
    }

    /// Connects through a device that replies with these bytes and then closes.
    async fn dial(answer: &'static [u8]) -> (io::Result<Stream>, String) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let device = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = [0; 14];
            stream.read_exact(&mut received).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8(received.to_vec()).unwrap()
        };
        let transport = open(path);
        tokio::join!(transport.connect(17003), device)
    }

    #[tokio::test]
    async fn a_port_is_requested_and_data_after_the_reply_is_not_lost() {
        let (stream, received) = dial(b"OK 1073741824\nhello").await;
        assert_eq!(received, "CONNECT 17003\n");
        assert_eq!(stream.unwrap().recv_some(64).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_port_without_a_listener_refuses_the_connection() {
        assert_eq!(dial(b"").await.0.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_reply_that_never_ends_is_refused() {
        let error = dial(b"OK 0000000000000000000000000000000000000000").await.0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_does_not_reply_times_out() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vsock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(open(path).connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_not_ready_is_not_connected_to() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let (ready_sender, ready) = watch::channel(false);
        let transport = Hybrid::new(path, ready);
        assert_eq!(transport.connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), listener.accept()).await.is_err());
        ready_sender.send_replace(true);
        assert_eq!(transport.connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        listener.accept().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_connection_stays_open_until_the_device_has_replied() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let transport = open(path);
        assert_eq!(transport.connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"OK 1\n").await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "CONNECT 1\n", "it was not closed afterwards");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_to_a_device_that_does_not_reply_are_bounded() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vsock");
        let _listener = UnixListener::bind(&path).unwrap();
        let transport = open(path);
        for _ in 0..=UNANSWERED {
            assert_eq!(transport.connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(transport.unanswered.available_permits(), 0);
    }
}
