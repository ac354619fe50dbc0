//! Programs that keep passwords (`docker-credential-NAME get`).
//!
//! Its law: the protocol of docker-credential-helpers; what a program prints is bounded, and it has a limit of time.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::fault::RegistryFault;
use super::login::Login;

/// The user name that marks a refresh token instead of a password (docker-credential-helpers, `README.md`).
const IDENTITY: &str = "<token>";

/// What a helper prints when it has nothing for this registry (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The longest answer, in bytes: tokens have some kilobytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// How long a helper may take. Some ask a cloud, or a person.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked whether it has ended.
const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper: the registry on its standard input, JSON on its standard output. `None`: it has nothing.
pub(super) fn ask(helper: &str, registry: &str) -> Result<Option<Login>, RegistryFault> {
    let fault = |why: String| RegistryFault::Helper { helper: helper.to_owned(), why };
    // The name is part of a program's name, not a path.
    if helper.contains('/') {
        return Err(fault("its name contains a slash".to_owned()));
    }
    let (ended_well, output) = run(helper, registry).map_err(|error| fault(error.to_string()))?;
    if !ended_well {
        let message = String::from_utf8_lossy(&output);
        let message = message.trim();
        let known = message.eq_ignore_ascii_case(NOT_FOUND);
        return if known { Ok(None) } else { Err(fault(message.chars().take(200).collect())) };
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| fault("its answer is not JSON".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        IDENTITY => Login::Identity(answer.secret),
        _ => Login::Password { user: answer.username, password: answer.secret },
    }))
}

/// Runs the program; whether it ended with code 0, and what it printed.
fn run(helper: &str, registry: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let mut child = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that has seen enough may be gone already.
        drop(input.write_all(registry.as_bytes()));
    }
    let output = child.stdout.take();
    let (answer, answered) = mpsc::channel();
    // A thread, since nothing bounds how long the output stays open: what the helper has started may hold it for ever.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(MAX_ANSWER).read_to_end(&mut bytes));
        drop(answer.send(read.map(|_| bytes)));
    });
    let end = Instant::now() + PATIENCE;
    let ended_well = wait(&mut child, end)?;
    let left = end.saturating_duration_since(Instant::now());
    match answered.recv_timeout(left) {
        Ok(bytes) => Ok((ended_well, bytes?)),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> std::io::Error {
    std::io::Error::other(format!("it did not answer within {} s", PATIENCE.as_secs()))
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
