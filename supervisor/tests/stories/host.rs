//! The host of a test: reads the status and the log, and sends requests.

use std::path::Path;
use std::time::Duration;

use cloister_net::Stream;
use cloister_net::channel::{self, ChannelError, Limits, Receiver, Sender};
use cloister_wire::control::{Assembly, FromGuest, FromHost, Reply, Request, State, Status};
use cloister_wire::frame::{self, HOST_LIMIT};
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::logs::{self, END, Record, Subscribe};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// Time limit for any wait in a test. Only a failure waits this long. On a machine that builds at the same time a test may get
/// no processor for many seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// The pause between two attempts to connect: a listener that does not exist yet cannot announce itself.
const RETRY: Duration = Duration::from_millis(5);

/// Waits for something that must happen soon.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(LIMIT, what).await.expect("timed out")
}

/// Waits until an excess connection is closed.
pub(crate) async fn refused(stream: &mut UnixStream) {
    let mut byte = [0];
    assert!(matches!(soon(stream.read(&mut byte)).await, Ok(0) | Err(_)), "it received data");
}

/// One connection.
pub(crate) struct Connection {
    receiver: Receiver,
    sender: Sender,
}

impl Connection {
    pub(crate) async fn open(path: &Path, protocol: Protocol) -> Self {
        soon(async {
            loop {
                match Self::try_open(path, protocol).await {
                    Ok(connection) => return connection,
                    // A listener whose supervisor is gone may still accept a connection: while another test starts a process, that process
                    // has a copy of it.
                    Err(ChannelError::Io(_) | ChannelError::Closed) => sleep(RETRY).await,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    async fn try_open(path: &Path, protocol: Protocol) -> Result<Self, ChannelError> {
        let limits = Limits { read: HOST_LIMIT, hello: LIMIT, ..Limits::HOST };
        let (receiver, sender) =
            channel::open(Stream::connect_unix(path)?, protocol, Role::Host, limits).await?;
        Ok(Self { receiver, sender })
    }

    pub(crate) async fn send<M: Serialize>(&mut self, message: &M) {
        self.sender.send(message).await.unwrap();
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Vec<u8>> {
        soon(async {
            loop {
                if let Some(body) = self.receiver.arrived().unwrap() {
                    return Some(body.to_vec());
                }
                if self.receiver.fill().await.is_err() {
                    return None;
                }
            }
        })
        .await
    }
}

/// A host on the control channel.
pub(crate) struct Host {
    connection: Connection,
    /// Every status received so far.
    pub(crate) seen: Vec<Status>,
    assembly: Assembly,
    id: u64,
}

impl Host {
    pub(crate) async fn open(path: &Path) -> Self {
        let connection = Connection::open(path, Protocol::Control).await;
        Self { connection, seen: vec![], assembly: Assembly::default(), id: 0 }
    }

    /// Reads statuses until one matches.
    pub(crate) async fn until<F: Fn(&Status) -> bool>(&mut self, wanted: F) -> Status {
        loop {
            let frame = self.connection.frame().await;
            let frame = frame
                .unwrap_or_else(|| panic!("the connection was closed; last status: {:?}", self.seen.last()));
            if let Some(status) = self.take(frame::decode(&frame).unwrap()).filter(|status| wanted(status)) {
                return status;
            }
        }
    }

    pub(crate) async fn until_ready(&mut self) -> Status {
        self.until(|s| s.state == State::Ready).await
    }

    /// Reads up to the final state and acknowledges it.
    pub(crate) async fn final_state(&mut self) -> State {
        let status = self.until(|s| s.state.is_final()).await;
        self.send(Request::Seen { seq: status.seq }).await;
        status.state
    }

    /// Sends a request, and waits for the reply.
    pub(crate) async fn request(&mut self, request: Request) -> Reply {
        self.send(request).await;
        loop {
            let frame = self.connection.frame().await.expect("the connection was closed");
            match frame::decode(&frame).unwrap() {
                FromGuest::Reply { id, reply } if id == self.id => return reply,
                message => drop(self.take(message)),
            }
        }
    }

    /// The status completed by this message, if any.
    fn take(&mut self, message: FromGuest) -> Option<Status> {
        let status = match message {
            FromGuest::Status(head) => self.assembly.head(head).unwrap(),
            FromGuest::Services(page) => self.assembly.page(page).unwrap(),
            FromGuest::Reply { .. } => None,
        };
        self.seen.extend(status.clone());
        status
    }

    /// The reply that arrives without a request.
    pub(crate) async fn refusal(&mut self) -> Reply {
        let frame = self.connection.frame().await.expect("the connection was closed");
        match frame::decode(&frame).unwrap() {
            FromGuest::Reply { reply, .. } => reply,
            message => panic!("unexpected message {message:?}"),
        }
    }

    pub(crate) async fn send(&mut self, request: Request) {
        self.id += 1;
        let id = self.id;
        self.connection.send(&FromHost { id, request }).await;
    }
}

/// A reader of the log.
pub(crate) struct Reader(Connection);

impl Reader {
    pub(crate) async fn open(path: &Path, from: u64, follow: bool) -> Self {
        let mut connection = Connection::open(path, Protocol::Logs).await;
        connection.send(&Subscribe { from, follow }).await;
        Self(connection)
    }

    /// The next record; `None` is the end sent by the supervisor.
    pub(crate) async fn next(&mut self) -> Option<Record> {
        let frame = self.0.frame().await.expect("the log connection was closed early");
        (frame != END).then(|| Record::from_bytes(&frame).unwrap())
    }

    /// All records up to the end.
    pub(crate) async fn rest(mut self) -> Vec<Record> {
        let mut records = vec![];
        while let Some(record) = self.next().await {
            records.push(record);
        }
        records
    }

    /// Reads until the output of `service` on `stream` contains `text`, and returns all of that output so far.
    pub(crate) async fn until(&mut self, service: &str, stream: logs::Stream, text: &str) -> String {
        let mut all = vec![];
        loop {
            let record = self.next().await.expect("the log ended");
            all.push(record);
            let output = output(&all, service, stream);
            if output.contains(text) {
                return output;
            }
        }
    }
}

/// A service's output on a stream, as contained in these records.
pub(crate) fn output(records: &[Record], service: &str, stream: logs::Stream) -> String {
    let mut bytes = vec![];
    for record in records {
        match record {
            Record::Output { service: s, stream: t, bytes: b, .. } if s == service && *t == stream => {
                bytes.extend_from_slice(b);
            }
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
