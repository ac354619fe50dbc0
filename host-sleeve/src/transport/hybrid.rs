//! The hybrid protocol of vhost-device-vsock, Firecracker and Cloud Hypervisor: a Unix socket, one line each way, then the
//! stream. What is meant by which end of it differs between them: `vhost-device-vsock` 0.3.0 carries no half-close.

use std::io;
use std::path::PathBuf;

use super::{Stream, Transport, in_time};
use crate::backends::Pending;

/// The longest answer in bytes: `OK `, a port of ten digits, a newline, and as much again.
const ANSWER_LIMIT: usize = 32;

/// An enclave behind a device's Unix socket.
#[derive(Debug)]
pub(crate) struct Hybrid {
    socket: PathBuf,
}

impl Hybrid {
    /// The enclave behind this socket.
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    async fn dial(&self, port: u32) -> io::Result<Stream> {
        let stream = Stream::connect_unix(&self.socket)?;
        stream.send_all(format!("CONNECT {port}\n").as_bytes()).await?;
        match stream.recv_line(ANSWER_LIMIT).await {
            Ok(line) if line.starts_with(b"OK ") => Ok(stream),
            // The device closes when nobody listens on that port.
            Err(error) if is_refusal(&error) => Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the vsock device answers with no OK")),
            Err(error) => Err(error),
        }
    }
}

impl Transport for Hybrid {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        Box::pin(in_time(self.dial(port)))
    }

    fn half_close(&self) -> bool {
        false
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// Dials a device that answers with these bytes and then closes.
    async fn dial(answer: &'static [u8]) -> (io::Result<Stream>, String) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let device = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8(asked.to_vec()).unwrap()
        };
        let transport = Hybrid::new(path);
        tokio::join!(transport.connect(17003), device)
    }

    #[tokio::test]
    async fn a_port_is_asked_for_and_what_follows_the_answer_is_kept() {
        let (stream, asked) = dial(b"OK 1073741824\nhello").await;
        assert_eq!(asked, "CONNECT 17003\n");
        assert_eq!(stream.unwrap().recv_some(64).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn nobody_listening_is_a_refused_connection() {
        assert_eq!(dial(b"").await.0.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_for_ever() {
        let error = dial(b"OK 0000000000000000000000000000000000000000").await.0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_does_not_answer_is_not_waited_for() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("vsock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Hybrid::new(path).connect(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
