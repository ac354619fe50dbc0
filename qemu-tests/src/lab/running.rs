//! An enclave in the foreground of a `host-sleeve run`, and a user's questions about it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::http::{self, Answer};
use super::{BOOT_LIMIT, COMMAND_LIMIT, Finished, Lab};
use crate::scenario::{Failure, Outcome, excerpt, expect};

/// How often a question is repeated until its answer is the expected one. Short compared to a boot, long compared to the cost
/// of a `host-sleeve` command.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running enclave. Dropping it kills its remaining processes.
#[derive(Debug)]
pub struct Running {
    child: Child,
    args: String,
    runtime: std::path::PathBuf,
    program: std::path::PathBuf,
    stdout: Arc<Captured>,
    stderr: Arc<Captured>,
    started: Instant,
}

/// The output of a stream so far, with a condition variable that signals more.
#[derive(Debug, Default)]
struct Captured {
    so_far: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Running {
    pub(super) fn start(lab: &Lab, args: &[&str], variables: &[(&str, &str)]) -> Result<Self, Failure> {
        let mut command = lab.sleeve(args).into_command();
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().map(capture).unwrap_or_default();
        let stderr = child.stderr.take().map(capture).unwrap_or_default();
        Ok(Self {
            child,
            args: args.join(" "),
            runtime: lab.folder().join("run"),
            program: lab.built().dist.join("bin/host-sleeve"),
            stdout,
            stderr,
            started: Instant::now(),
        })
    }

    /// Everything on stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stdout contains `part`.
    pub fn wait_stdout(&self, part: &str) -> Outcome {
        expect(
            self.stdout.wait(part, BOOT_LIMIT),
            format_args!(
                "no {part:?} on stdout:\n{}\nstderr:\n{}",
                excerpt(&self.stdout()),
                excerpt(&self.stderr())
            ),
        )
    }

    /// Waits until stdout contains `bytes`, which need not be text.
    pub fn wait_stdout_bytes(&self, bytes: &[u8]) -> Outcome {
        let found = |captured: &[u8]| captured.windows(bytes.len()).any(|window| window == bytes);
        expect(
            self.stdout.wait_until(BOOT_LIMIT, found),
            format_args!("no {bytes:?} on stdout:\n{}", excerpt(&self.stdout())),
        )
    }

    /// Waits until stderr contains `part`.
    pub fn wait_stderr(&self, part: &str) -> Outcome {
        expect(
            self.stderr.wait(part, BOOT_LIMIT),
            format_args!("no {part:?} on stderr:\n{}", excerpt(&self.stderr())),
        )
    }

    /// Waits until stderr contains `part` this many times.
    pub fn wait_stderr_times(&self, part: &str, times: u64) -> Outcome {
        let enough = |bytes: &[u8]| {
            let found = bytes.windows(part.len()).filter(|window| *window == part.as_bytes()).count();
            u64::try_from(found).is_ok_and(|found| found >= times)
        };
        expect(
            self.stderr.wait_until(BOOT_LIMIT, enough),
            format_args!("{part:?} is not {times} times on stderr:\n{}", excerpt(&self.stderr())),
        )
    }

    /// `host-sleeve inspect web --json`.
    pub fn inspect(&self) -> Result<Value, Failure> {
        let inspected = self.command(&["inspect", "web", "--json"])?;
        inspected.expect_code(0)?;
        inspected.json()
    }

    /// Waits until the enclave's state is `state`; any other final state ends the wait.
    pub fn wait_state(&self, state: &str) -> Result<Value, Failure> {
        let (began, mut last) = (Instant::now(), String::new());
        while began.elapsed() < BOOT_LIMIT.saturating_add(COMMAND_LIMIT) {
            let asked = self.command(&["inspect", "web", "--json"])?;
            let value = asked.json().unwrap_or_default();
            if value.pointer("/status/state").and_then(Value::as_str) == Some(state) {
                return Ok(value);
            }
            last = asked.stdout;
            if self.is_of_this_run(&value) && has_ended(&value) {
                break;
            }
            self.stderr.pause(POLL_INTERVAL);
        }
        Err(Failure::failed(format_args!(
            "the enclave did not reach the state {state}; last seen: {last}\nstderr of run:\n{}",
            excerpt(&self.stderr())
        )))
    }

    /// Whether a record is of this run: with `--replace` the previous one remains until this one has replaced it.
    fn is_of_this_run(&self, record: &Value) -> bool {
        let sleeve = record.pointer("/sleeve/pid").and_then(Value::as_u64);
        sleeve == Some(u64::from(self.pid())) || self.stdout.wait_end(Duration::ZERO)
    }

    /// One service's status, as shown by `inspect`.
    pub fn service(&self, name: &str) -> Result<Value, Failure> {
        let inspected = self.inspect()?;
        service_in(&inspected, name)
            .ok_or_else(|| Failure::failed(format_args!("inspect shows no service {name}: {inspected}")))
    }

    /// Waits until a service is in this phase, and returns its status.
    pub fn wait_service(&self, name: &str, wanted: &str) -> Result<Value, Failure> {
        let mut last = Value::Null;
        while self.started.elapsed() < BOOT_LIMIT.saturating_add(COMMAND_LIMIT) {
            let inspected = self.command(&["inspect", "web", "--json"])?.json().unwrap_or_default();
            // Before the first status there are no services.
            last = service_in(&inspected, name).unwrap_or(last);
            if phase(&last) == wanted {
                return Ok(last);
            }
            if self.is_of_this_run(&inspected) && has_ended(&inspected) {
                break;
            }
            self.stderr.pause(POLL_INTERVAL);
        }
        Err(Failure::failed(format_args!(
            "{name} did not reach the phase {wanted}; last seen: {last}\nstderr of run:\n{}",
            excerpt(&self.stderr())
        )))
    }

    /// Waits until the enclave is ready.
    pub fn wait_ready(&self) -> Result<Value, Failure> {
        self.wait_state("ready")
    }

    /// Calls `ask` repeatedly until it returns an answer, within the time limit of a boot; `what` describes the answer.
    pub fn until<T>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        while started.elapsed() < BOOT_LIMIT {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            self.stderr.pause(POLL_INTERVAL);
        }
        Err(Failure::failed(format_args!(
            "timed out waiting for: {what}\nstderr of run:\n{}",
            excerpt(&self.stderr())
        )))
    }

    /// Runs another `host-sleeve` command in the same lab.
    pub fn command(&self, args: &[&str]) -> Result<Finished, Failure> {
        super::Sleeve::new(&self.program, &self.runtime, args).finish()
    }

    /// `GET path` through a published port.
    pub fn get(&self, port: u16, path: &str) -> Result<Answer, Failure> {
        http::get(port, path, COMMAND_LIMIT)
    }

    /// Sends a signal to the `host-sleeve run` itself.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// The process number of the `host-sleeve run` itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the `host-sleeve run` has exited.
    pub fn finish(&mut self) -> Result<Finished, Failure> {
        let ended = self.stdout.wait_end(BOOT_LIMIT) && self.stderr.wait_end(COMMAND_LIMIT);
        expect(
            ended,
            format_args!(
                "host-sleeve {} did not exit\n{}{}",
                self.args,
                excerpt(&self.stdout()),
                excerpt(&self.stderr())
            ),
        )?;
        let status = self.child.wait()?;
        Ok(Finished {
            args: self.args.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took: self.started.elapsed(),
        })
    }

    /// Runs `host-sleeve stop web`, and waits until the run has exited.
    pub fn stop(&mut self) -> Result<Finished, Failure> {
        self.command(&["stop", "web"])?.expect_code(0)?;
        self.finish()
    }
}

/// The status of one service in the output of `inspect`.
fn service_in(inspected: &Value, name: &str) -> Option<Value> {
    let all = inspected.pointer("/status/services").and_then(Value::as_array)?;
    all.iter().find(|one| one.get("name") == Some(&name.into())).cloned()
}

/// Whether the output of `inspect` is final.
fn has_ended(inspected: &Value) -> bool {
    inspected.get("alive") == Some(&Value::Bool(false))
}

/// The phase in a service's status.
#[must_use]
pub fn phase(service: &Value) -> &str {
    service.get("phase").and_then(Value::as_str).unwrap_or_default()
}

impl Drop for Running {
    fn drop(&mut self) {
        // The sleeve's children are killed with it, by their parent-death signal.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.so_far.lock().unwrap_or_else(PoisonError::into_inner).0).into_owned()
    }

    fn wait(&self, part: &str, limit: Duration) -> bool {
        self.wait_until(limit, |bytes| bytes.windows(part.len()).any(|window| window == part.as_bytes()))
    }

    fn wait_until(&self, limit: Duration, enough: impl Fn(&[u8]) -> bool) -> bool {
        let guard = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .more
            .wait_timeout_while(guard, limit, |(bytes, ended)| !enough(bytes) && !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        enough(&guard.0)
    }

    fn wait_end(&self, limit: Duration) -> bool {
        let guard = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .more
            .wait_timeout_while(guard, limit, |(_, ended)| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        guard.1
    }

    /// Waits for more output, for at most `limit`.
    fn pause(&self, limit: Duration) {
        let guard = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.more.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner));
    }
}

fn capture(from: impl Read + Send + 'static) -> Arc<Captured> {
    let captured = Arc::new(Captured::default());
    let writer = Arc::clone(&captured);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let piece = from.fill_buf().map(<[u8]>::to_vec).unwrap_or_default();
            let mut so_far = writer.so_far.lock().unwrap_or_else(PoisonError::into_inner);
            so_far.0.extend_from_slice(&piece);
            so_far.1 = piece.is_empty();
            writer.more.notify_all();
            if piece.is_empty() {
                return;
            }
            drop(so_far);
            from.consume(piece.len());
        }
    });
    captured
}
