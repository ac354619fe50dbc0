//! The programs that make up a machine.
//!
//! Invariant: a program started here dies with the sleeve, is reaped, and its last output is retained, bounded.

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

use crate::error::{ErrorContext, Result};
use crate::state::process::ProcessId;
use crate::values::signal_name;

/// How much of a program's standard error is retained: its last lines, which contain the reason.
const TAIL_SIZE: usize = 4096;

/// Time limit for reading the remaining output of a program that has exited.
const OUTPUT_LIMIT: Duration = Duration::from_millis(500);

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    label: &'static str,
    child: Child,
    stderr_tail: Tail,
    collector: Option<JoinHandle<()>>,
}

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Program {
    /// Starts `program` in the directory `dir`. It inherits the descriptors `keep`, with the same numbers.
    ///
    /// This must be called from the main thread: the program dies with the thread that started it.
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
            command.kill_on_drop(true).spawn().context(|| format!("cannot start {}", program.display()))?;
        let stderr_tail = Tail::default();
        let collector = child.stderr.take().map(|stderr| tokio::spawn(stderr_tail.clone().collect(stderr)));
        Ok(Self { label, child, stderr_tail, collector })
    }

    /// Its standard output, once.
    pub(crate) const fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its process, while it is running.
    pub(crate) fn id(&self) -> Option<ProcessId> {
        self.child.id().and_then(ProcessId::of)
    }

    /// Waits until it has exited. Returns its exit code and a description. May be called again after the future was dropped.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        match self.child.wait().await {
            Ok(status) => (status.code(), format!("{} {}", self.label, describe(status))),
            Err(error) => (None, format!("cannot wait for {}: {error}", self.label)),
        }
    }

    /// Whether it has already exited.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it SIGKILL, without waiting.
    pub(crate) fn start_kill(&mut self) {
        // An error means that it has already exited.
        drop(self.child.start_kill());
    }

    /// Kills it and reaps it.
    pub(crate) async fn kill(&mut self) {
        // An error means that it has already exited and was reaped.
        drop(self.child.kill().await);
    }

    /// Its last output on standard error, if any. To be called after it has exited.
    pub(crate) async fn last_output(&mut self) -> Option<String> {
        if let Some(collector) = &mut self.collector {
            // Another process may keep the stream open: do not wait for it any longer.
            drop(time::timeout(OUTPUT_LIMIT, collector).await);
            // Only now, so that the call can be repeated after it was cancelled.
            self.collector = None;
        }
        self.stderr_tail.text()
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
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let over = tail.len().saturating_sub(TAIL_SIZE);
        tail.drain(..over);
    }

    fn text(&self) -> Option<String> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

fn describe(status: ExitStatus) -> String {
    let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
    match (signal, status.code()) {
        (Some(signal), _) => format!("was killed by {}", signal_name(signal)),
        (None, Some(0)) => "exited".to_owned(),
        (None, code) => format!("exited with code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::start("sh", Path::new("/bin/sh"), ["-c", script], Path::new("/"), Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn the_exit_code_and_the_last_output_are_reported() {
        let mut program = sh("echo gone wrong >&2; exit 3");
        assert_eq!(program.ended().await, (Some(3), "sh exited with code 3".to_owned()));
        assert_eq!(program.last_output().await.unwrap(), "gone wrong");
    }

    #[tokio::test]
    async fn a_killed_program_is_reported_with_its_signal() {
        let mut program = sh("kill -9 $$");
        assert_eq!(program.ended().await.1, "sh was killed by SIGKILL");
    }

    #[test]
    fn only_the_last_output_is_retained() {
        let tail = Tail::default();
        tail.push(&vec![b'a'; TAIL_SIZE]);
        tail.push(b"the end");
        let text = tail.text().unwrap();
        assert_eq!(text.len(), TAIL_SIZE);
        assert!(text.ends_with("the end"));
    }
}
