//! Finds QEMU.
//!
//! Invariant: a QEMU that is found has reported its version within a time limit, and is not too old. While it is queried, signals
//! are handled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time;

use crate::error::{Error, ErrorContext, Result};
use crate::install;
use crate::values::show_duration;

use super::children::Program;
use super::version::{self, Version};

/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";

/// How long QEMU may take to answer a query. It takes milliseconds, plus the time to read some hundred megabytes of libraries from a
/// slow disk on a busy host.
const QUERY_LIMIT: Duration = Duration::from_secs(20);

/// Maximum output that is read: the list of machines has a few kilobytes.
const MAX_OUTPUT: u64 = 256 * 1024;

/// A QEMU that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The path of its executable.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: Version,
    /// The first line of what it prints about itself.
    pub(crate) line: String,
}

/// Finds QEMU and queries its version.
pub(crate) async fn find() -> Result<Found> {
    let path = install::in_path(PROGRAM).ok_or_else(|| {
        Error::host(format!("{PROGRAM} is not installed")).hint("apt install qemu-system-x86")
    })?;
    at(path).await
}

/// The QEMU in this file.
pub(super) async fn at(path: PathBuf) -> Result<Found> {
    let text = query(&path, &["--version"]).await?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    match Version::parse(&text) {
        Some(version) if version >= version::OLDEST => Ok(Found { path, version, line }),
        Some(version) => Err(Error::host(format!("{} is version {version}", path.display()))
            .hint(format!("version {} or newer is required", version::OLDEST))),
        None => Err(Error::host(format!("{} does not report its version", path.display()))
            .hint("is it QEMU? `--version` should print `QEMU emulator version …`")),
    }
}

/// Runs `program` with these arguments and returns what it prints on standard output. It is killed if this is dropped.
pub(super) async fn query(program: &Path, arguments: &[&str]) -> Result<String> {
    query_within(QUERY_LIMIT, program, arguments).await
}

async fn query_within(limit: Duration, program: &Path, arguments: &[&str]) -> Result<String> {
    let mut running = Program::start("QEMU", program, arguments, Path::new("/"), Vec::new())?;
    let mut output = Vec::new();
    let answer = async {
        if let Some(stdout) = running.stdout() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let answered = time::timeout(limit, answer).await;
    running.kill().await;
    let Ok(read) = answered else {
        let (path, limit) = (program.display(), show_duration(limit));
        let what = format!("{path} {} did not finish within {limit}", arguments.join(" "));
        return Err(Error::host(what).hint("is it QEMU? If so, try again when the host is less busy"));
    };
    read.context(|| format!("cannot read the output of {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state::process::ProcessId;

    /// A program that writes its process number into a file, and continues with this script.
    fn program(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu");
        fs::write(&path, format!("#!/bin/sh\necho $$ >{}/pid\n{script}\n", dir.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    /// The process that [`program`] has started, once it is running.
    async fn process(dir: &Path) -> ProcessId {
        loop {
            let text = fs::read_to_string(dir.join("pid")).unwrap_or_default();
            if let Some(process) = text.trim().parse().ok().and_then(ProcessId::of) {
                return process;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_version_is_read_and_an_old_one_refused() {
        let (_dir, path) = program("echo QEMU emulator version 99.1.0");
        assert_eq!(at(path).await.unwrap().line, "QEMU emulator version 99.1.0");
        let (_dir, path) = program("echo QEMU emulator version 1.0.0");
        assert!(at(path).await.unwrap_err().to_string().contains("is version 1.0"));
    }

    #[tokio::test]
    async fn a_program_that_does_not_answer_is_killed_and_reported() {
        let (dir, path) = program("exec sleep 1000");
        let error =
            query_within(Duration::from_secs(2), &path, &["--version"]).await.unwrap_err().to_string();
        assert!(error.ends_with("--version did not finish within 2.0 s"), "{error}");
        let number = fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        assert!(ProcessId::of(number).is_none(), "it is still running");
    }

    #[tokio::test]
    async fn a_query_that_is_interrupted_kills_the_program() {
        let (dir, path) = program("exec sleep 1000");
        let process = tokio::select! {
            answer = query(&path, &["--version"]) => panic!("{answer:?}"),
            process = process(dir.path()) => process,
        };
        assert!(process.wait(Duration::from_secs(10)));
    }
}
