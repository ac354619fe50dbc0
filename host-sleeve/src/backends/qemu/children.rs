//! The programs that make up a machine.
//!
//! Its law: a program started here dies with the sleeve, is reaped, and what it said last is kept, bounded.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time;

use crate::error::{Doing, Result};
use crate::state::process::ProcessId;
use crate::values::signal_name;

/// How much of a program's standard error is kept: its last lines, where the reason is.
const KEEP: usize = 4096;

/// How long the rest of an ended program's words may take to be read.
const SAID_LIMIT: Duration = Duration::from_millis(500);

/// A running program of ours.
#[derive(Debug)]
pub(crate) struct Program {
    label: &'static str,
    child: Child,
    said: Tail,
    collector: Option<JoinHandle<()>>,
}

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Program {
    /// Starts `program` in the folder `dir` with `keep` under the same descriptor numbers.
    ///
    /// It must be called from the main thread: the program dies with the thread that started it.
    pub(crate) fn start<A: AsRef<OsStr>>(
        label: &'static str,
        program: &Path,
        argv: impl IntoIterator<Item = A>,
        dir: &Path,
        keep: Vec<OwnedFd>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(argv)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        cloister_sys::child::dies_with_parent(&mut command, keep);
        let mut command = tokio::process::Command::from(command);
        let mut child =
            command.kill_on_drop(true).spawn().doing(|| format!("cannot start {}", program.display()))?;
        let said = Tail::default();
        let collector = child.stderr.take().map(|stderr| tokio::spawn(said.clone().collect(stderr)));
        Ok(Self { label, child, said, collector })
    }

    /// Its standard output, once.
    pub(crate) const fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Which process it is, while it runs.
    pub(crate) fn id(&self) -> Option<ProcessId> {
        self.child.id().and_then(ProcessId::of)
    }

    /// Waits until it has ended, and says how. May be asked again after the future was dropped.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        match self.child.wait().await {
            Ok(status) => (status.code(), format!("{} {}", self.label, words(status))),
            Err(error) => (None, format!("{} cannot be waited for: {error}", self.label)),
        }
    }

    /// Whether it has ended already.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it the signal that nothing withstands, and waits for nothing.
    pub(crate) fn start_kill(&mut self) {
        // An error means that it has ended: what was wanted.
        drop(self.child.start_kill());
    }

    /// Kills it and reaps it.
    pub(crate) async fn kill(&mut self) {
        // An error means that it has ended and is reaped: what was wanted.
        drop(self.child.kill().await);
    }

    /// What it said last on standard error, if anything. To be asked after its end.
    pub(crate) async fn said(&mut self) -> Option<String> {
        if let Some(collector) = &mut self.collector {
            // A stream that something else keeps open has said what it has to say.
            drop(time::timeout(SAID_LIMIT, collector).await);
            // Only now: whoever is interrupted in the middle asks again.
            self.collector = None;
        }
        self.said.text()
    }
}

impl Tail {
    async fn collect(self, mut stream: ChildStderr) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.push(buffer.get(..count).unwrap_or_default());
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEEP);
        kept.drain(..over);
    }

    fn text(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

fn words(status: ExitStatus) -> String {
    let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
    match (signal, status.code()) {
        (Some(signal), _) => format!("was killed by {}", signal_name(signal)),
        (None, Some(0)) => "ended".to_owned(),
        (None, code) => format!("ended with code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::start("sh", Path::new("/bin/sh"), ["-c", script], Path::new("/"), Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn a_program_tells_how_it_ended_and_what_it_said() {
        let mut program = sh("echo gone wrong >&2; exit 3");
        assert_eq!(program.ended().await, (Some(3), "sh ended with code 3".to_owned()));
        assert_eq!(program.said().await.unwrap(), "gone wrong");
    }

    #[tokio::test]
    async fn a_killed_program_is_told_by_its_signal() {
        let mut program = sh("kill -9 $$");
        assert_eq!(program.ended().await.1, "sh was killed by SIGKILL");
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let tail = Tail::default();
        tail.push(&vec![b'a'; KEEP]);
        tail.push(b"the end");
        let text = tail.text().unwrap();
        assert_eq!(text.len(), KEEP);
        assert!(text.ends_with("the end"));
    }
}
