//! One complete run of `host-sleeve`.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::COMMAND_LIMIT;
use crate::scenario::{Failure, Outcome, expect};

/// A command line of `host-sleeve`.
#[derive(Debug)]
pub struct Sleeve {
    pub(super) command: Command,
    args: String,
    limit: Duration,
    /// Whether it leads a process group, which is killed with it.
    pub(super) leads: bool,
}

/// The result of a finished command.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command's arguments, for messages.
    pub args: String,
    /// Its exit code, if it was not killed.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Its stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Its stderr, likewise.
    pub stderr: String,
    /// Its duration.
    pub took: Duration,
}

impl Sleeve {
    /// The program at `program` with these arguments, in this runtime directory.
    #[must_use]
    pub fn new(program: &Path, runtime: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("CLOISTER_RUNTIME_DIR", runtime).stdin(Stdio::null());
        Self { command, args: args.join(" "), limit: COMMAND_LIMIT, leads: false }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets its time limit; the default is [`COMMAND_LIMIT`].
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command, for a caller that starts it itself.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it until it exits; after its time limit it is killed and the scenario fails.
    pub fn finish(mut self) -> Result<Finished, Failure> {
        let started = Instant::now();
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let (ended, wait) = mpsc::channel();
        let waiter = thread::spawn(move || ended.send(child.wait()).is_ok());
        let status = wait.recv_timeout(self.limit);
        if status.is_err() {
            let kill =
                if self.leads { rustix::process::kill_process_group } else { rustix::process::kill_process };
            kill(pid, rustix::process::Signal::KILL).map_err(std::io::Error::from)?;
        }
        drop(waiter.join());
        let output = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            String::from_utf8_lossy(&reader.and_then(|r| r.join().ok()).unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (output(stdout), output(stderr));
        let Ok(status) = status else {
            let limit = self.limit;
            return Err(Failure::failed(format_args!(
                "host-sleeve {} did not exit within {limit:?}\n{stdout}{stderr}",
                self.args
            )));
        };
        let status = status?;
        Ok(Finished {
            args: self.args,
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr,
            took: started.elapsed(),
        })
    }
}

impl Finished {
    /// Fails the scenario unless the command exited with `code`.
    pub fn expect_code(&self, code: i32) -> Outcome {
        expect(
            self.code == Some(code),
            format_args!(
                "host-sleeve {}: expected exit code {code}, saw {:?} (signal {:?})\nstdout:\n{}\nstderr:\n{}",
                self.args, self.code, self.signal, self.stdout, self.stderr
            ),
        )
    }

    /// Its stdout, as JSON.
    pub fn json(&self) -> Result<serde_json::Value, Failure> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            Failure::failed(format_args!(
                "host-sleeve {} printed no JSON ({error}):\n{}",
                self.args, self.stdout
            ))
        })
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        bytes
    })
}
