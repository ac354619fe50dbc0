//! QMP: what QEMU says about its machine.
//!
//! Its law: it only listens. Whoever loses this channel loses the reason of a shutdown and nothing else. Lines are
//! bounded: QEMU is trusted less once a guest has run in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time;

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
}

#[derive(Debug, Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    reason: Option<String>,
}

impl Qmp {
    /// Listens at `socket` in the folder `dir` as soon as QEMU is there.
    pub(crate) fn listen(dir: PathBuf, socket: &'static str) -> Self {
        let heard = Arc::new(Heard::default());
        let task = tokio::spawn(follow(dir, socket, Arc::clone(&heard)));
        Self { heard, task: Some(task) }
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

async fn follow(dir: PathBuf, socket: &'static str, heard: Arc<Heard>) {
    let Ok(Some(mut stream)) = time::timeout(OPEN_LIMIT, open(&dir, socket)).await else {
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
        if let Some(why) = shutdown_cause(&line) {
            heard.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        }
    }
}

async fn open(dir: &Path, socket: &str) -> Option<UnixStream> {
    let folder = std::fs::File::open(dir).ok()?;
    let short = format!("/proc/self/fd/{}/{socket}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    loop {
        if let Ok(stream) = UnixStream::connect(&short).await {
            return Some(stream);
        }
        time::sleep(PAUSE).await;
    }
}

/// The reason of a shutdown, if this line tells one. A panic is told before the shutdown that it causes.
fn shutdown_cause(line: &[u8]) -> Option<String> {
    let line: Line = serde_json::from_slice(line).ok()?;
    match line.event?.as_str() {
        "GUEST_PANICKED" => Some("guest-panic".to_owned()),
        "SHUTDOWN" => Some(line.data.reason.unwrap_or_else(|| "unknown".to_owned())),
        _ => None,
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
        assert_eq!(shutdown_cause(RESET).as_deref(), Some("guest-reset"));
        assert_eq!(
            shutdown_cause(br#"{"event":"GUEST_PANICKED","data":{"action":"pause"}}"#).unwrap(),
            "guest-panic"
        );
        assert_eq!(shutdown_cause(br#"{"return":{}}"#), None);
        assert_eq!(shutdown_cause(b"\xff{"), None);
    }

    #[tokio::test]
    async fn the_reason_is_kept_after_qemu_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut qmp = Qmp::listen(dir.path().to_owned(), "qmp.sock");
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
