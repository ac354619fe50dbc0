//! A connection to the supervisor's local sockets.
//!
//! Invariant: both ends send a hello first, and every frame is bounded.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use cloister_wire::control::{Assembly, FromGuest, FromHost, PageError, Reply, Request, Status, Time};
use cloister_wire::frame::{self, Decoder, FrameError, HOST_LIMIT};
use cloister_wire::hello::{Hello, HelloError, Protocol, Role};
use cloister_wire::logs::{END, Record, RecordError, Subscribe};
use cloister_wire::ports::{LOCAL_CONTROL, LOCAL_LOGS, LOCAL_TIME};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Maximum length of the line about the time: its longest is 73 bytes.
const MAX_TIME: u64 = 256;

/// The only request on a connection.
const ID: u64 = 1;

/// Why the supervisor is not reachable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The supervisor is not running, or the connection failed.
    #[error("cannot reach the supervisor: {0}")]
    Io(#[from] io::Error),
    /// It closed the connection, as it does for services that are not allowed to read the log.
    #[error(
        "the supervisor closed the connection; only services listed in control.services of the manifest may connect"
    )]
    Closed,
    /// It refused the request.
    #[error("{0}")]
    Refused(String),
    /// It uses another version or protocol.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It sent an invalid message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It sent an invalid status.
    #[error(transparent)]
    Page(#[from] PageError),
    /// It sent an invalid log record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A connection.
pub(crate) struct Client {
    stream: UnixStream,
    decoder: Decoder,
    assembly: Assembly,
}

/// How far the date can be trusted. Every service may ask.
pub(crate) fn time() -> Result<Time, ClientError> {
    let mut line = Vec::new();
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(LOCAL_TIME)?)?;
    stream.take(MAX_TIME).read_to_end(&mut line)?;
    Ok(serde_json::from_slice(&line).map_err(io::Error::from)?)
}

impl Client {
    /// Connects to the control channel.
    pub(crate) fn control() -> Result<Self, ClientError> {
        Self::open(LOCAL_CONTROL, Protocol::Control)
    }

    /// Connects to the log channel.
    pub(crate) fn logs(subscribe: Subscribe) -> Result<Self, ClientError> {
        let mut client = Self::open(LOCAL_LOGS, Protocol::Logs)?;
        client.send(&subscribe)?;
        Ok(client)
    }

    /// The next status; the first one is sent at once.
    pub(crate) fn status(&mut self) -> Result<Status, ClientError> {
        loop {
            let whole = match self.receive()? {
                FromGuest::Status(head) => self.assembly.head(head)?,
                FromGuest::Services(page) => self.assembly.page(page)?,
                FromGuest::Reply { reply: Reply::Refused { why }, .. } => {
                    return Err(ClientError::Refused(why));
                }
                FromGuest::Reply { .. } => None,
            };
            if let Some(status) = whole {
                return Ok(status);
            }
        }
    }

    /// Sends a request and waits for the reply.
    pub(crate) fn request(&mut self, request: Request) -> Result<Reply, ClientError> {
        match self.send(&FromHost { id: ID, request }) {
            // A reply sent before the close can still be read.
            Err(ClientError::Io(error)) if is_closed(&error) => {}
            sent => sent?,
        }
        loop {
            match self.receive()? {
                FromGuest::Reply { id: ID, reply } => return Ok(reply),
                // Sent before any request.
                FromGuest::Reply { reply: Reply::Refused { why }, .. } => {
                    return Err(ClientError::Refused(why));
                }
                FromGuest::Reply { .. } | FromGuest::Status(_) | FromGuest::Services(_) => {}
            }
        }
    }

    /// The next record; `None` at the end.
    pub(crate) fn record(&mut self) -> Result<Option<Record>, ClientError> {
        match self.body() {
            Ok(body) if body == END => Ok(None),
            Ok(body) => Ok(Some(Record::from_bytes(&body)?)),
            Err(ClientError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(address: &str, protocol: Protocol) -> Result<Self, ClientError> {
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(address)?)?;
        let mut client = Self { stream, decoder: Decoder::new(HOST_LIMIT), assembly: Assembly::default() };
        let hello = client.send(&Hello::new(protocol, Role::Local)).and_then(|()| client.receive::<Hello>());
        match hello {
            Ok(hello) => hello.check(protocol)?,
            Err(ClientError::Io(error)) if is_closed(&error) => return Err(ClientError::Closed),
            Err(error) => return Err(error),
        }
        Ok(client)
    }

    fn send<M: Serialize>(&mut self, message: &M) -> Result<(), ClientError> {
        Ok(self.stream.write_all(&frame::encode(message, HOST_LIMIT)?)?)
    }

    fn receive<M: DeserializeOwned>(&mut self) -> Result<M, ClientError> {
        Ok(frame::decode(&self.body()?)?)
    }

    fn body(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            if let Some(body) = self.decoder.next_frame()? {
                return Ok(body.to_vec());
            }
            let mut buffer = [0; READ_BYTES];
            match self.stream.read(&mut buffer)? {
                0 => return Err(ClientError::Closed),
                count => self.decoder.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
}

/// Whether the peer closed before or without reading the hello.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
