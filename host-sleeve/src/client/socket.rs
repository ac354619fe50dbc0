//! A connection to the sleeve of an enclave, over `sleeve.sock`.
//!
//! Invariant: every wait for a reply has a time limit. When the sleeve exits, open connections are closed, so that
//! clients notice.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use cloister_wire::control::{Reply, Request};
use cloister_wire::frame::{self, Decoder, HOST_LIMIT};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorContext, Result};
use crate::state::EnclaveDir;
use crate::state::process::ProcessId;

/// The socket's name in the enclave's directory.
pub(crate) const SOCKET: &str = "sleeve.sock";

/// The version of this protocol. A sleeve may be older than the command that connects to it.
pub(crate) const VERSION: u32 = 1;

/// How long the sleeve may take to reply.
const SLEEVE_LIMIT: Duration = Duration::from_secs(20);

/// A message to a sleeve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The request.
    pub(crate) ask: SleeveRequest,
}

/// A request to a sleeve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum SleeveRequest {
    /// Stop the enclave cleanly.
    Stop {
        /// How long it may take, in milliseconds; default: the manifest's limit.
        grace_ms: Option<u64>,
    },
    /// Kill the machine.
    Kill,
    /// Forward this to the enclave.
    Enclave(Request),
    /// Connect to this ingress port of the manifest. After the reply [`Reply::Done`] the connection carries its bytes.
    Connect {
        /// The port.
        port: u16,
    },
}

/// A connection to a sleeve.
#[derive(Debug)]
pub(crate) struct Client {
    /// The enclave's name.
    name: String,
    stream: StdStream,
    decoder: Decoder,
}

impl Client {
    /// Connects to the sleeve of this enclave. `None` if it is gone.
    pub(crate) fn connect(directory: &EnclaveDir) -> Result<Option<Self>> {
        let stream = match StdStream::connect(directory.socket(SOCKET)) {
            Ok(stream) => stream,
            // An enclave that has ended takes no requests, even while its sleeve prints the remaining output.
            Err(_) if !directory.is_alive() || directory.has_ended() => return Ok(None),
            Err(error) => {
                let name = directory.name();
                return Err(Error::host(format!("cannot reach the sleeve of {name}")).because(error).hint(
                    format!("try again if it was just launched; `host-sleeve rm --force {name}` kills it together with its sleeve"),
                ));
            }
        };
        let client = Self { name: directory.name().to_owned(), stream, decoder: Decoder::new(HOST_LIMIT) };
        client.limit(SLEEVE_LIMIT)?;
        Ok(Some(client))
    }

    /// Sets the time limit for a reply.
    pub(crate) fn limit(&self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit)).context(|| "cannot set a time limit".to_owned())
    }

    /// Sends a request and waits for the reply.
    pub(crate) fn request(&mut self, request: SleeveRequest) -> Result<Reply> {
        let name = self.name.clone();
        self.exchange(request, || format!("the sleeve of {name} does not respond")).map_err(|error| {
            error.hint(format!("`host-sleeve rm --force {name}` kills the enclave together with its sleeve"))
        })
    }

    fn exchange(&mut self, request: SleeveRequest, context: impl Fn() -> String + Copy) -> Result<Reply> {
        let envelope = Envelope { version: VERSION, ask: request };
        let bytes = frame::encode(&envelope, HOST_LIMIT).map_err(std::io::Error::other).context(context)?;
        self.stream.write_all(&bytes).context(context)?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let reply =
                self.decoder.next_message::<Reply>().map_err(std::io::Error::other).context(context)?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer).context(context)? {
                0 => return Err(Error::enclave("the enclave ended before it replied")),
                count => self.decoder.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Waits until the enclave of `directory` has ended, and then for its sleeve to exit, within the limit of
    /// [`EnclaveDir::wait_end`]. Returns the sleeve's process if it is still running then.
    pub(crate) fn wait_end(
        mut self,
        directory: &EnclaveDir,
        sleeve: Option<ProcessId>,
    ) -> Result<Option<ProcessId>> {
        let context = || "cannot wait for the sleeve".to_owned();
        self.stream.set_read_timeout(None).context(context)?;
        let mut buffer = [0; 64];
        while let Ok(1..) = self.stream.read(&mut buffer) {}
        Ok(directory.wait_end(sleeve, true))
    }

    /// The connection that the last reply opened, with what has been received of it.
    pub(crate) fn into_tunnel(self) -> Tunnel {
        Tunnel { early: self.decoder.into_remainder(), stream: self.stream }
    }

    /// The underlying connection, for callers that only wait for it to be closed.
    pub(crate) fn into_stream(self) -> StdStream {
        self.stream
    }
}

/// A connection to an ingress port of an enclave, through its sleeve.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// What the enclave has sent already.
    pub(crate) early: Vec<u8>,
    /// What follows.
    pub(crate) stream: StdStream,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_enclave_sends_at_once_is_not_lost() {
        let (ours, mut sleeve) = StdStream::pair().unwrap();
        let mut client = Client { name: "web".into(), stream: ours, decoder: Decoder::new(HOST_LIMIT) };
        let mut sent = frame::encode(&Reply::Done, HOST_LIMIT).unwrap();
        sent.extend(b"220 mail.example.com");
        sleeve.write_all(&sent).unwrap();
        assert_eq!(client.request(SleeveRequest::Connect { port: 25 }).unwrap(), Reply::Done);
        assert_eq!(client.into_tunnel().early, b"220 mail.example.com");
    }

    #[test]
    fn requests_are_encoded_as_documented() {
        let envelope = Envelope { version: 1, ask: SleeveRequest::Enclave(Request::Ping) };
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(text, r#"{"version":1,"ask":{"enclave":{"type":"ping"}}}"#);
        let connect = Envelope { version: 1, ask: SleeveRequest::Connect { port: 443 } };
        assert_eq!(
            serde_json::to_string(&connect).unwrap(),
            r#"{"version":1,"ask":{"connect":{"port":443}}}"#
        );
        let stop = Envelope { version: 1, ask: SleeveRequest::Stop { grace_ms: None } };
        assert_eq!(
            serde_json::to_string(&stop).unwrap(),
            r#"{"version":1,"ask":{"stop":{"grace_ms":null}}}"#
        );
    }
}
