//! How a port of an enclave is reached.
//!
//! Its law: whoever connects need not know which transport it is on, but for whether a half-close survives it.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_relay::Stream;
use cloister_sys::vsock::Address;
use tokio::io::AsyncReadExt;
use tokio::time;

use crate::backends::Pending;

/// A way to an enclave.
pub(crate) trait Transport: Debug + Send + Sync {
    /// Connects to a port.
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>>;
}

/// The hybrid unix-socket protocol of vhost-device-vsock, Firecracker and Cloud Hypervisor: `CONNECT <port>\n`, then
/// `OK <port>\n` or the end.
#[derive(Debug)]
pub(crate) struct Hybrid {
    socket: PathBuf,
}

/// `AF_VSOCK`.
#[derive(Debug)]
pub(crate) struct Kernel {
    cid: u32,
}

/// How long the enclave may take to accept. One whose kernel has not come that far yet does not answer at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The longest answer: `OK`, a port and the line's end.
const MAX_ANSWER: usize = 32;

impl Hybrid {
    /// The device behind this socket.
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Kernel {
    /// The guest of this address.
    pub(crate) const fn new(cid: u32) -> Self {
        Self { cid }
    }
}

impl Transport for Hybrid {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        Box::pin(async move {
            let mut stream = Stream::connect_unix(&self.socket)?;
            stream.send_all(format!("CONNECT {port}\n").as_bytes()).await?;
            let answer = async {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') && line.len() < MAX_ANSWER {
                    line.push(stream.read_u8().await?);
                }
                io::Result::Ok(line)
            };
            let line = time::timeout(ANSWER_LIMIT, answer).await??;
            if line.starts_with(b"OK ") { Ok(stream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        })
    }
}

impl Transport for Kernel {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        let to = Address { cid: self.cid, port };
        Box::pin(async move { time::timeout(ANSWER_LIMIT, Stream::connect_vsock(to)).await? })
    }
}
