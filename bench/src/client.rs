//! The client: the same questions by every path.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cloister_relay::Stream;
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use tokio::task::JoinSet;

use crate::service::{ECHO, SINK, SOURCE};

/// The longest that one measurement may take: ten times what the slowest path needs.
pub const LIMIT: Duration = Duration::from_mins(2);

/// Bytes of a round trip: a small request.
const SMALL: usize = 64;

/// A way to the service.
#[derive(Clone, Debug)]
pub enum Route {
    /// Through the device's socket to a vsock port that needs no header.
    Vsock(PathBuf, u32),
    /// Through the device's socket to the supervisor's ingress.
    Ingress(PathBuf, u32),
    /// Through a published port of this machine.
    Published(SocketAddr),
}

impl Route {
    /// Connects. What has to go ahead of the request comes back, to be sent in one piece with it.
    async fn connect(&self) -> io::Result<(Stream, Vec<u8>)> {
        match self {
            Self::Vsock(socket, port) => Ok((dial(socket, *port).await?, Vec::new())),
            Self::Ingress(socket, port) => {
                let (client, framing) = (None, Framing::Raw);
                let header = Header { version: VERSION, port: crate::ports::INGRESS, client, framing };
                let header = frame::encode(&header, HEADER_LIMIT).map_err(io::Error::other)?;
                Ok((dial(socket, *port).await?, header))
            }
            Self::Published(address) => Ok((Stream::connect_tcp(*address).await?, Vec::new())),
        }
    }

    /// Bytes per second into the guest.
    pub async fn upload(&self, bytes: u64) -> io::Result<f64> {
        let (stream, head) = self.connect().await?;
        let start = Instant::now();
        stream.send_all(&request(head, SINK, bytes)).await?;
        let piece = vec![b'x'; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let next = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            stream.send_all(piece.get(..next).unwrap_or_default()).await?;
            left = left.saturating_sub(u64::try_from(next).unwrap_or(left));
        }
        exactly(&stream, 1).await?;
        Ok(rate(bytes, start))
    }

    /// Bytes per second out of the guest.
    pub async fn download(&self, bytes: u64) -> io::Result<f64> {
        let (stream, head) = self.connect().await?;
        let start = Instant::now();
        stream.send_all(&request(head, SOURCE, bytes)).await?;
        exactly(&stream, bytes).await?;
        Ok(rate(bytes, start))
    }

    /// Milliseconds of each of `count` round trips on one connection.
    pub async fn round_trips(&self, count: u32) -> io::Result<Vec<f64>> {
        let stream = self.open_echo().await?;
        let ping = [b'p'; SMALL];
        let mut samples = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            stream.send_all(&ping).await?;
            exactly(&stream, 64).await?;
            samples.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(samples)
    }

    /// Connections per second, `side_by_side` at a time: each is made, asks one question, hears the answer and closes.
    pub async fn connections(&self, count: u32, side_by_side: u32) -> io::Result<f64> {
        let start = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..side_by_side {
            let route = self.clone();
            workers.spawn(async move {
                for _ in 0..count / side_by_side {
                    drop(route.open_echo().await?);
                }
                io::Result::Ok(())
            });
        }
        while let Some(done) = workers.join_next().await {
            done.map_err(io::Error::other)??;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }

    /// A connection that has asked one question and heard the answer.
    pub async fn open_echo(&self) -> io::Result<Stream> {
        let (stream, mut head) = self.connect().await?;
        head.extend([ECHO, b'?']);
        stream.send_all(&head).await?;
        exactly(&stream, 1).await?;
        Ok(stream)
    }
}

/// Dials a vsock port through the device's socket.
pub async fn dial(socket: &std::path::Path, port: u32) -> io::Result<Stream> {
    let stream = Stream::connect_unix(socket)?;
    stream.send_all(format!("CONNECT {port}\n").as_bytes()).await?;
    if stream.recv_line(32).await?.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

fn request(mut head: Vec<u8>, what: u8, bytes: u64) -> Vec<u8> {
    head.push(what);
    head.extend(bytes.to_be_bytes());
    head
}

async fn exactly(stream: &Stream, mut left: u64) -> io::Result<()> {
    let mut piece = vec![0; 256 * 1024];
    while left > 0 {
        let window = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = stream.recv(piece.get_mut(..window).unwrap_or_default()).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(u64::try_from(got).unwrap_or(left));
    }
    Ok(())
}

fn rate(bytes: u64, start: Instant) -> f64 {
    let megabytes = u32::try_from(bytes / 1_000_000).unwrap_or(u32::MAX);
    f64::from(megabytes) / start.elapsed().as_secs_f64()
}
