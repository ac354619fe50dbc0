//! Credential helpers (`docker-credential-NAME get`).
//!
//! Invariant: the protocol is that of docker-credential-helpers; the output of a program is bounded, and it has a time limit.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::error::RegistryError;
use super::login::Login;

/// The user name that marks a refresh token instead of a password (docker-credential-helpers, `README.md`).
const IDENTITY: &str = "<token>";

/// What a helper prints if it has no login for this registry (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Maximum size of the output in bytes: tokens take some kilobytes.
const MAX_OUTPUT: u64 = 64 * 1024;

/// How long a helper may take. Some contact a cloud service, or prompt the user.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// How often it is checked whether the helper has exited.
const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Queries a helper: the registry on its standard input, JSON on its standard output. `None` if it has no login.
pub(super) fn query(helper: &str, registry: &str) -> Result<Option<Login>, RegistryError> {
    let failed = |why: String| RegistryError::Helper { helper: helper.to_owned(), why };
    // The name is part of a program's name, not a path.
    if helper.contains('/') {
        return Err(failed("its name contains a slash".to_owned()));
    }
    let (succeeded, output) = run(helper, registry).map_err(|error| failed(error.to_string()))?;
    if !succeeded {
        let message = String::from_utf8_lossy(&output);
        let message = message.trim();
        let known = message.eq_ignore_ascii_case(NOT_FOUND);
        return if known { Ok(None) } else { Err(failed(message.chars().take(200).collect())) };
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| failed("its output is not valid JSON".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        IDENTITY => Login::Identity(answer.secret),
        _ => Login::Password { user: answer.username, password: answer.secret },
    }))
}

/// Runs the program. Returns whether it exited with code 0, and its output.
fn run(helper: &str, registry: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let mut child = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that needs no input may have exited already.
        drop(input.write_all(registry.as_bytes()));
    }
    let output = child.stdout.take();
    let (answer, answered) = mpsc::channel();
    // On a thread, because a process started by the helper may keep the output open indefinitely.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(MAX_OUTPUT).read_to_end(&mut bytes));
        drop(answer.send(read.map(|_| bytes)));
    });
    let end = Instant::now() + TIME_LIMIT;
    let succeeded = wait(&mut child, end)?;
    let left = end.saturating_duration_since(Instant::now());
    match answered.recv_timeout(left) {
        Ok(bytes) => Ok((succeeded, bytes?)),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> std::io::Error {
    std::io::Error::other(format!("it did not respond within {} s", TIME_LIMIT.as_secs()))
}

fn wait(child: &mut Child, end: Instant) -> std::io::Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(too_slow());
        }
        std::thread::park_timeout(INTERVAL);
    }
}
