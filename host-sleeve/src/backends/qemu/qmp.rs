//! QMP: what QEMU says about its machine.
//!
//! Its law: it only listens, and asks why when QEMU has stopped the machine. Whoever loses this channel loses the reason of
//! a shutdown, and the news of a machine that QEMU will not run any further, and nothing else. Lines are bounded: QEMU is
//! trusted less once a guest has run in it.

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

/// The longest line that is read; an event has some hundred bytes.
const MAX_LINE: u64 = 64 * 1024;

/// How long QEMU may take to open its socket on a busy machine.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// How long reading what QEMU has written may take.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// The pause between two tries to connect. QEMU opens the socket within tens of milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// A listener on QMP.
#[derive(Debug)]
pub(crate) struct Qmp {
    heard: Arc<Heard>,
    /// Until it is known to have ended: a task that has told its end must not be waited for again.
    task: Option<JoinHandle<()>>,
}

/// What has come of listening so far.
#[derive(Debug, Default)]
struct Heard {
    connected: AtomicBool,
    cause: Mutex<Option<String>>,
    /// Why QEMU runs the machine no further, once it has said so.
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

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// The machine is shut down, for this reason.
    Shutdown(String),
    /// The machine was stopped, and QEMU lives on.
    Stopped,
    /// The state that QEMU says the machine is in.
    State(String),
}

/// The states of QEMU's `RunState` (qapi/run-state.json) in which a machine stands that nobody continues.
const HALTED: [&str; 4] = ["internal-error", "io-error", "guest-panicked", "paused"];

impl Qmp {
    /// Listens at `socket` in the folder `dir` as soon as QEMU is there.
    pub(crate) fn listen(dir: Dir, socket: &'static str) -> Self {
        let heard = Arc::new(Heard::default());
        let task = tokio::spawn(follow(dir, socket, Arc::clone(&heard)));
        Self { heard, task: Some(task) }
    }

    /// Waits until QEMU says that it runs the machine no further, and tells in which state it stands. For ever where QEMU
    /// does not.
    pub(crate) async fn halted(&self) -> String {
        let mut halted = self.heard.halted.subscribe();
        loop {
            if let Some(state) = halted.borrow_and_update().clone() {
                return state;
            }
            // No error while `heard` is there.
            drop(halted.changed().await);
        }
    }

    /// Why the machine was shut down, as QEMU calls it (`guest-reset`, `guest-panic`, …), once QEMU has ended. May be
    /// given up in the middle and asked again.
    pub(crate) async fn cause(&mut self) -> Option<String> {
        // QEMU has ended: a socket that was reached is at its end, and one that was not never will be.
        if self.heard.connected.load(Ordering::Acquire)
            && let Some(task) = &mut self.task
        {
            if time::timeout(READ_LIMIT, &mut *task).await.is_err() {
                task.abort();
            }
            self.task = None;
        }
        self.heard.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn follow(dir: Dir, socket: &'static str, heard: Arc<Heard>) {
    let Ok(mut stream) = time::timeout(OPEN_LIMIT, open(&dir, socket)).await else {
        return;
    };
    heard.connected.store(true, Ordering::Release);
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
        match news(&line) {
            Some(News::Shutdown(why)) => {
                heard.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
            Some(News::Stopped) => {
                if lines.get_mut().write_all(b"{\"execute\":\"query-status\"}\n").await.is_err() {
                    return;
                }
            }
            Some(News::State(state)) if HALTED.contains(&state.as_str()) => {
                heard.halted.send_replace(Some(state));
            }
            Some(News::State(_)) | None => {}
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

/// What a line tells, if it is about that. A panic is told before the shutdown that it causes.
fn news(line: &[u8]) -> Option<News> {
    let line: Line = serde_json::from_slice(line).ok()?;
    match line.event.as_deref() {
        Some("GUEST_PANICKED") => Some(News::Shutdown("guest-panic".to_owned())),
        Some("SHUTDOWN") => Some(News::Shutdown(line.data.reason.unwrap_or_else(|| "unknown".to_owned()))),
        Some("STOP") => Some(News::Stopped),
        Some(_) => None,
        None => line.answer.status.map(News::State),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const RESET: &[u8] = br#"{"timestamp":{"seconds":1,"microseconds":2},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}
"#;

    #[test]
    fn a_shutdown_tells_its_reason() {
        assert_eq!(news(RESET), Some(News::Shutdown("guest-reset".into())));
        assert_eq!(
            news(br#"{"event":"GUEST_PANICKED","data":{"action":"pause"}}"#),
            Some(News::Shutdown("guest-panic".into()))
        );
        assert_eq!(news(br#"{"return":{}}"#), None);
        assert_eq!(news(b"\xff{"), None);
    }

    #[tokio::test]
    async fn a_machine_that_qemu_runs_no_further_is_told_with_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("qmp.sock")).unwrap();
        let qmp = Qmp::listen(Dir::open(dir.path()).unwrap(), "qmp.sock");
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream);
        let mut asked = String::new();
        lines.read_line(&mut asked).await.unwrap();
        lines.get_mut().write_all(b"{\"return\":{}}\n{\"event\":\"STOP\"}\n").await.unwrap();
        asked.clear();
        lines.read_line(&mut asked).await.unwrap();
        assert_eq!(asked, "{\"execute\":\"query-status\"}\n");
        let answer = b"{\"return\":{\"running\":false,\"singlestep\":false,\"status\":\"internal-error\"}}\n";
        lines.get_mut().write_all(answer).await.unwrap();
        assert_eq!(qmp.halted().await, "internal-error");
    }

    #[tokio::test]
    async fn the_reason_is_kept_after_qemu_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut qmp = Qmp::listen(Dir::open(dir.path()).unwrap(), "qmp.sock");
        let listener = UnixListener::bind(dir.path().join("qmp.sock")).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"QMP\":{\"version\":{}}}\n").await.unwrap();
        let mut asked = [0; 31];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(RESET).await.unwrap();
        drop(stream);
        assert_eq!(qmp.cause().await.as_deref(), Some("guest-reset"));
        // Whoever waited for the end of a machine may have been interrupted, and asks again.
        assert_eq!(qmp.cause().await.as_deref(), Some("guest-reset"));
    }
}
