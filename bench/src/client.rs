//! The client: the same requests on every path.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cloister_net::Stream;
use cloister_wire::chunks::{self, Decoder};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{CHUNK_LIMIT, Framing, HEADER_LIMIT, Header};
use tokio::task::JoinSet;

use crate::service::{ECHO, SINK, SOURCE};

/// Time limit for one measurement: ten times what the slowest path needs.
pub const LIMIT: Duration = Duration::from_mins(2);

/// Bytes of a round trip: the size of a small request.
const SMALL: usize = 64;

/// A path to the service.
#[derive(Clone, Debug)]
pub enum Route {
    /// Through the device's socket to a vsock port that needs no header.
    Vsock(PathBuf, u32),
    /// Through the device's socket to the supervisor's ingress.
    Ingress(PathBuf, u32),
    /// Through a published port of this machine.
    Published(SocketAddr),
}

/// A connection to a service, in chunks if its other end is the supervisor's ingress.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// The state of reading chunks.
    chunks: Option<Decoder>,
    /// Bytes that are sent before the first data, in the same write.
    head: Vec<u8>,
}

impl Connection {
    /// A connection to a service at the other end of `stream`.
    #[must_use]
    pub const fn plain(stream: Stream) -> Self {
        Self { stream, chunks: None, head: Vec::new() }
    }

    /// A connection to a service behind the supervisor's ingress.
    pub fn by_ingress(stream: Stream) -> io::Result<Self> {
        let (client, framing) = (None, Framing::Chunked);
        let header = Header { version: VERSION, port: crate::ports::INGRESS, client, framing };
        let head = frame::encode(&header, HEADER_LIMIT).map_err(io::Error::other)?;
        Ok(Self { stream, chunks: Some(Decoder::default()), head })
    }

    /// Sends the header now, for a service that sends first.
    pub async fn open(&mut self) -> io::Result<()> {
        self.stream.send_all(&std::mem::take(&mut self.head)).await
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.chunks.is_none() {
            return self.stream.send_all(bytes).await;
        }
        for piece in bytes.chunks(CHUNK_LIMIT) {
            let mut out = std::mem::take(&mut self.head);
            out.extend(chunks::header(piece.len())?);
            out.extend(piece);
            self.stream.send_all(&out).await?;
        }
        Ok(())
    }

    /// Reads some bytes into `buffer`; 0 is the end.
    pub async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.stream.recv(buffer).await?;
            let Some(decoder) = self.chunks.as_mut().filter(|_| got > 0) else { return Ok(got) };
            let payload = decoder.strip(buffer.get_mut(..got).unwrap_or_default())?;
            let count = payload.len();
            if count > 0 {
                buffer.copy_within(payload, 0);
                return Ok(count);
            }
            if decoder.ended() || decoder.broken() {
                return Ok(0);
            }
        }
    }
}

impl Route {
    /// Connects.
    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Vsock(socket, port) => Ok(Connection::plain(dial(socket, *port).await?)),
            Self::Ingress(socket, port) => Connection::by_ingress(dial(socket, *port).await?),
            Self::Published(address) => Ok(Connection::plain(Stream::connect_tcp(*address).await?)),
        }
    }

    /// Bytes per second into the guest.
    pub async fn upload(&self, bytes: u64) -> io::Result<f64> {
        let mut connection = self.connect().await?;
        let start = Instant::now();
        connection.send(&request(SINK, bytes)).await?;
        let piece = vec![b'x'; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let next = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            connection.send(piece.get(..next).unwrap_or_default()).await?;
            left = left.saturating_sub(u64::try_from(next).unwrap_or(left));
        }
        exactly(&mut connection, 1).await?;
        Ok(rate(bytes, start))
    }

    /// Bytes per second out of the guest.
    pub async fn download(&self, bytes: u64) -> io::Result<f64> {
        let mut connection = self.connect().await?;
        let start = Instant::now();
        connection.send(&request(SOURCE, bytes)).await?;
        exactly(&mut connection, bytes).await?;
        Ok(rate(bytes, start))
    }

    /// Milliseconds of each of `count` round trips on one connection.
    pub async fn round_trips(&self, count: u32) -> io::Result<Vec<f64>> {
        let mut connection = self.open_echo().await?;
        let ping = [b'p'; SMALL];
        let mut samples = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            connection.send(&ping).await?;
            exactly(&mut connection, 64).await?;
            samples.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(samples)
    }

    /// Connections per second, `parallel` at a time: each is opened, sends one request, receives the response and closes.
    pub async fn connections(&self, count: u32, parallel: u32) -> io::Result<f64> {
        let start = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..parallel {
            let route = self.clone();
            workers.spawn(async move {
                for _ in 0..count / parallel {
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

    /// A connection that has sent one request and received the response.
    pub async fn open_echo(&self) -> io::Result<Connection> {
        let mut connection = self.connect().await?;
        connection.send(&[ECHO, b'?']).await?;
        exactly(&mut connection, 1).await?;
        Ok(connection)
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

fn request(what: u8, bytes: u64) -> Vec<u8> {
    let mut request = vec![what];
    request.extend(bytes.to_be_bytes());
    request
}

/// Reads `left` bytes, the whole response.
async fn exactly(connection: &mut Connection, mut left: u64) -> io::Result<()> {
    let mut piece = vec![0; 256 * 1024];
    while left > 0 {
        let got = connection.recv(&mut piece).await?;
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
