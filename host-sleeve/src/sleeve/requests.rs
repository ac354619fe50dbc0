//! What other `host-sleeve` commands ask of a sleeve, over `sleeve.sock`.
//!
//! Its law: only the enclave's own user can reach it, since the folder is that user's alone; still everything is bounded,
//! and a client that hangs holds up nobody. A client that keeps its connection learns of the sleeve's end by its closing.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Limits};
use cloister_net::{Entrance, Gate, Listener, Stream, accept_each, within};
use cloister_wire::control::{Reply, Request};
use cloister_wire::frame::{self, Decoder, HOST_LIMIT};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Doing, Error, Result};
use crate::state::Folder;
use crate::state::process::ProcessId;

use super::control::Ask;
use super::life::Event;

/// The socket's name in the enclave's folder.
pub(crate) const SOCKET: &str = "sleeve.sock";

/// The version of this protocol. A sleeve may be older than the command that asks.
const VERSION: u32 = 1;

/// Clients at once; a follower of the logs is one.
const MAX_CLIENTS: usize = 256;

/// How long the enclave may take to answer a request that was passed on.
const GUEST_LIMIT: Duration = Duration::from_secs(15);

/// How long the sleeve itself may take.
const SLEEVE_LIMIT: Duration = Duration::from_secs(20);

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    /// [`VERSION`].
    version: u32,
    /// What is asked.
    ask: Asked,
}

/// What is asked of a sleeve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Asked {
    /// Stop the enclave in order.
    Stop {
        /// How long it may take, in milliseconds, if not as long as the manifest says.
        grace_ms: Option<u64>,
    },
    /// Kill the machine.
    Kill,
    /// Pass this on to the enclave.
    Enclave(Request),
}

/// What a sleeve needs to serve.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    /// To the sleeve's life.
    pub(crate) events: mpsc::Sender<Event>,
    /// To the enclave.
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// Where clients of the sleeve of `folder` connect.
pub(crate) fn listen(folder: &Folder) -> Result<Listener> {
    let doing = || format!("cannot listen at {}", folder.file(SOCKET).display());
    let listener = StdListener::bind(folder.socket(SOCKET)).and_then(Listener::from_unix);
    listener.doing(doing).map_err(|error| {
        error.hint("CLOISTER_STATE_DIR names another folder: on a file system that can hold sockets, such as a local disk's")
    })
}

/// Serves clients until it is dropped.
pub(crate) async fn serve(listener: Listener, doors: Doors) {
    let handle = move |stream, _| {
        let doors = doors.clone();
        async move {
            // A client that breaks off has what it wanted, or has only itself to blame.
            drop(client(stream, doors).await);
        }
    };
    accept_each(Entrance::anyone(listener), Gate::new(MAX_CLIENTS), handle).await;
}

async fn client(stream: Stream, doors: Doors) -> Result<Infallible, ChannelError> {
    let (mut receiver, mut sender) = channel::without_hello(stream, Limits::HOST);
    loop {
        let reply = answer(receiver.receive().await?, &doors).await;
        sender.send(&reply).await?;
    }
}

async fn answer(envelope: Envelope, doors: &Doors) -> Reply {
    if envelope.version != VERSION {
        let why = format!("this sleeve speaks version {VERSION}, not {}", envelope.version);
        return Reply::Refused { why };
    }
    let event = match envelope.ask {
        Asked::Enclave(request) => return pass_on(request, doors).await,
        Asked::Stop { grace_ms } => {
            Event::Stop { why: "stopped".to_owned(), grace: grace_ms.map(Duration::from_millis) }
        }
        Asked::Kill => Event::Kill { why: "killed on request".to_owned() },
    };
    match doors.events.send(event).await {
        Ok(()) => Reply::Done,
        Err(_) => Reply::Refused { why: "the enclave is ending".to_owned() },
    }
}

async fn pass_on(request: Request, doors: &Doors) -> Reply {
    let refused = |why: &str| Reply::Refused { why: why.to_owned() };
    let (answer, reply) = oneshot::channel();
    let ask = Ask { request, answer: Some(answer) };
    let passed = async {
        doors.asks.send(ask).await.ok()?;
        reply.await.ok()
    };
    match within(GUEST_LIMIT, "the enclave's answer", passed).await {
        Ok(Some(reply)) => reply,
        Ok(None) => refused("the enclave went away before it answered"),
        Err(_) => refused("the enclave did not answer in time"),
    }
}

/// A connection to a sleeve.
#[derive(Debug)]
pub(crate) struct Client {
    stream: StdStream,
    decoder: Decoder,
}

impl Client {
    /// Connects to the sleeve of this enclave; nothing if it is gone.
    pub(crate) fn connect(folder: &Folder) -> Result<Option<Self>> {
        let stream = match StdStream::connect(folder.socket(SOCKET)) {
            Ok(stream) => stream,
            // One that has ended can be asked nothing, also while its sleeve prints what is left.
            Err(_) if !folder.is_alive() || folder.has_ended() => return Ok(None),
            Err(error) => {
                let name = folder.name();
                return Err(Error::host(format!("cannot reach the sleeve of {name}")).because(error).hint(
                    format!("ask again if it was launched this moment; `host-sleeve rm --force {name}` ends it without asking"),
                ));
            }
        };
        let client = Self { stream, decoder: Decoder::new(HOST_LIMIT) };
        client.limit(SLEEVE_LIMIT)?;
        Ok(Some(client))
    }

    /// Waits no longer than this for an answer.
    pub(crate) fn limit(&self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit)).doing(|| "cannot set a time limit".to_owned())
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, ask: Asked) -> Result<Reply> {
        let doing = || "the sleeve does not answer".to_owned();
        let envelope = Envelope { version: VERSION, ask };
        let bytes = frame::encode(&envelope, HOST_LIMIT).map_err(std::io::Error::other).doing(doing)?;
        self.stream.write_all(&bytes).doing(doing)?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let reply = self.decoder.next_message::<Reply>().map_err(std::io::Error::other).doing(doing)?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer).doing(doing)? {
                0 => return Err(Error::enclave("the enclave ended before it answered")),
                count => self.decoder.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Waits until the enclave of `folder` has ended, and its sleeve with it or [`Folder::wait_end`]'s limit after it. Answers
    /// the process of a sleeve that is still there then.
    pub(crate) fn wait_end(
        mut self,
        folder: &Folder,
        sleeve: Option<ProcessId>,
    ) -> Result<Option<ProcessId>> {
        let doing = || "cannot wait for the sleeve".to_owned();
        self.stream.set_read_timeout(None).doing(doing)?;
        let mut buffer = [0; 64];
        while let Ok(1..) = self.stream.read(&mut buffer) {}
        Ok(folder.wait_end(sleeve, true))
    }

    /// The bare connection, for one who only wants to see it closed.
    pub(crate) fn into_stream(self) -> StdStream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_these_bytes() {
        let envelope = Envelope { version: 1, ask: Asked::Enclave(Request::Ping) };
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(text, r#"{"version":1,"ask":{"enclave":{"ask":"ping"}}}"#);
        let stop = Envelope { version: 1, ask: Asked::Stop { grace_ms: None } };
        assert_eq!(
            serde_json::to_string(&stop).unwrap(),
            r#"{"version":1,"ask":{"stop":{"grace_ms":null}}}"#
        );
    }

    #[tokio::test]
    async fn another_version_is_refused_by_number() {
        let (events, _life) = mpsc::channel(1);
        let (asks, _enclave) = mpsc::channel(1);
        let reply = answer(Envelope { version: 9, ask: Asked::Kill }, &Doors { events, asks }).await;
        assert_eq!(reply, Reply::Refused { why: "this sleeve speaks version 1, not 9".into() });
    }

    #[tokio::test]
    async fn a_request_to_an_enclave_that_went_away_is_refused() {
        let (events, _life) = mpsc::channel(1);
        let (asks, enclave) = mpsc::channel(1);
        drop(enclave);
        let reply = pass_on(Request::Ping, &Doors { events, asks }).await;
        assert!(matches!(reply, Reply::Refused { .. }));
    }
}
