//! QMP: QEMU's events about its machine.
//!
//! Invariant: it only listens, and queries the reason when QEMU has stopped the machine. If this channel is lost, the reason for
//! a shutdown and the report of a stopped machine are lost, and nothing else. Lines are bounded: QEMU is trusted less once a
//! guest has run in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;

use crate::state::Dir;

/// Maximum length of a line that is read; an event has some hundred bytes.
const MAX_LINE: u64 = 64 * 1024;

/// How long QEMU may take to open its socket on a busy machine.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// Time limit for reading the remaining data from an exited QEMU.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// The pause between two attempts to connect. QEMU opens the socket within tens of milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// A listener on QMP.
#[derive(Debug)]
pub(crate) struct Qmp {
    received: Arc<Received>,
    /// `None` once it has been joined: a task must not be joined twice.
    task: Option<JoinHandle<()>>,
}

/// What has been received so far.
#[derive(Debug, Default)]
struct Received {
    connected: AtomicBool,
    cause: Mutex<Option<String>>,
    /// The state in which QEMU has stopped the machine, once it has reported one.
    halted: watch::Sender<Option<String>>,
}

#[derive(Debug, Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Data,
    /// The answer to `query-status`.
    #[serde(rename = "return", default)]
    answer: Answer,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    status: Option<String>,
}

/// A relevant message.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// The machine was shut down, for this reason.
    Shutdown(String),
    /// The machine was stopped, and QEMU is still running.
    Stopped,
    /// The machine's state as reported by QEMU.
    State(String),
}

/// The states of QEMU's `RunState` (qapi/run-state.json) in which a machine stays stopped.
const HALTED: [&str; 4] = ["internal-error", "io-error", "guest-panicked", "paused"];

impl Qmp {
    /// Connects to `socket` in the directory `dir` as soon as QEMU has opened it, and listens.
    pub(crate) fn listen(dir: Dir, socket: &'static str) -> Self {
        let received = Arc::new(Received::default());
        let task = tokio::spawn(follow(dir, socket, Arc::clone(&received)));
        Self { received, task: Some(task) }
    }

    /// Waits until QEMU reports that it has stopped the machine for good, and returns its state. Never returns if QEMU does not
    /// report that.
    pub(crate) async fn halted(&self) -> String {
        let mut halted = self.received.halted.subscribe();
        loop {
            if let Some(state) = halted.borrow_and_update().clone() {
                return state;
            }
            // Cannot fail while `received` exists.
            drop(halted.changed().await);
        }
    }

    /// Why the machine was shut down, in QEMU's terms (`guest-reset`, `guest-panic`, …). To be called once QEMU has exited. Cancel
    /// safe.
    pub(crate) async fn cause(&mut self) -> Option<String> {
        // QEMU has exited: a connected socket is at end of file, and an unconnected one will never connect.
        if self.received.connected.load(Ordering::Acquire)
            && let Some(task) = &mut self.task
        {
            if time::timeout(READ_LIMIT, &mut *task).await.is_err() {
                task.abort();
            }
            self.task = None;
        }
        self.received.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn follow(dir: Dir, socket: &'static str, received: Arc<Received>) {
    let Ok(mut stream) = time::timeout(OPEN_LIMIT, open(&dir, socket)).await else {
        return;
    };
    received.connected.store(true, Ordering::Release);
    if stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await.is_err() {
        return;
    }
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        match parse(&line) {
            Some(Message::Shutdown(why)) => {
                received.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
            Some(Message::Stopped) => {
                if lines.get_mut().write_all(b"{\"execute\":\"query-status\"}\n").await.is_err() {
                    return;
                }
            }
            Some(Message::State(state)) if HALTED.contains(&state.as_str()) => {
                received.halted.send_replace(Some(state));
            }
            Some(Message::State(_)) | None => {}
        }
    }
}

async fn open(dir: &Dir, socket: &str) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(dir.at(socket)).await {
            return stream;
        }
        time::sleep(PAUSE).await;
    }
}

/// Parses a line. `None` if it is not relevant. A panic is reported before the shutdown that it causes.
fn parse(line: &[u8]) -> Option<Message> {
    let line: Line = serde_json::from_slice(line).ok()?;
    match line.event.as_deref() {
        Some("GUEST_PANICKED") => Some(Message::Shutdown("guest-panic".to_owned())),
        Some("SHUTDOWN") => Some(Message::Shutdown(line.data.reason.unwrap_or_else(|| "unknown".to_owned()))),
        Some("STOP") => Some(Message::Stopped),
        Some(_) => None,
        None => line.answer.status.map(Message::State),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const RESET: &[u8] = br#"{"timestamp":{"seconds":1,"microseconds":2},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}
"#;

    #[test]
    fn the_reason_for_a_shutdown_is_parsed() {
        assert_eq!(parse(RESET), Some(Message::Shutdown("guest-reset".into())));
        assert_eq!(
            parse(br#"{"event":"GUEST_PANICKED","data":{"action":"pause"}}"#),
            Some(Message::Shutdown("guest-panic".into()))
        );
        assert_eq!(parse(br#"{"return":{}}"#), None);
        assert_eq!(parse(b"\xff{"), None);
    }

    #[tokio::test]
    async fn a_machine_that_qemu_has_stopped_is_reported_with_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("qmp.sock")).unwrap();
        let qmp = Qmp::listen(Dir::open(dir.path()).unwrap(), "qmp.sock");
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream);
        let mut received = String::new();
        lines.read_line(&mut received).await.unwrap();
        lines.get_mut().write_all(b"{\"return\":{}}\n{\"event\":\"STOP\"}\n").await.unwrap();
        received.clear();
        lines.read_line(&mut received).await.unwrap();
        assert_eq!(received, "{\"execute\":\"query-status\"}\n");
        let answer = b"{\"return\":{\"running\":false,\"singlestep\":false,\"status\":\"internal-error\"}}\n";
        lines.get_mut().write_all(answer).await.unwrap();
        assert_eq!(qmp.halted().await, "internal-error");
    }

    #[tokio::test]
    async fn the_reason_is_available_after_qemu_has_exited() {
        let dir = tempfile::tempdir().unwrap();
        let mut qmp = Qmp::listen(Dir::open(dir.path()).unwrap(), "qmp.sock");
        let listener = UnixListener::bind(dir.path().join("qmp.sock")).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"QMP\":{\"version\":{}}}\n").await.unwrap();
        let mut received = [0; 31];
        stream.read_exact(&mut received).await.unwrap();
        stream.write_all(RESET).await.unwrap();
        drop(stream);
        assert_eq!(qmp.cause().await.as_deref(), Some("guest-reset"));
        // The wait for a machine's exit may be cancelled and repeated.
        assert_eq!(qmp.cause().await.as_deref(), Some("guest-reset"));
    }
}
