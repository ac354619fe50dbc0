//! How a port of an enclave is reached.
//!
//! Its law: whoever connects need not know which transport it is on, but for whether a half-close survives it.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time;

use crate::backends::Pending;

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for S {}

/// A way to an enclave.
pub(crate) trait Transport: Debug + Send + Sync {
    /// Connects to a port.
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Box<dyn Stream>>>;
}

/// The hybrid unix-socket protocol.
#[derive(Debug)]
pub(crate) struct Hybrid {
    socket: PathBuf,
}

const ANSWER_LIMIT: Duration = Duration::from_secs(2);

impl Hybrid {
    /// The device behind this socket.
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Transport for Hybrid {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            let answer = async {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') && line.len() < 32 {
                    line.push(stream.read_u8().await?);
                }
                io::Result::Ok(line)
            };
            let line = time::timeout(ANSWER_LIMIT, answer).await??;
            if line.starts_with(b"OK ") {
                Ok(Box::new(stream) as Box<dyn Stream>)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }
}
