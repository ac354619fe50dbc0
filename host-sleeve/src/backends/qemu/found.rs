//! Finds QEMU.
//!
//! Invariant: a QEMU that is found has reported its version, and is not too old.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, ErrorContext, Result};
use crate::install;

use super::version::{self, Version};

/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";

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
pub(crate) fn find() -> Result<Found> {
    let path = install::in_path(PROGRAM).ok_or_else(|| {
        Error::host(format!("{PROGRAM} is not installed")).hint("apt install qemu-system-x86")
    })?;
    at(path)
}

/// The QEMU in this file.
pub(super) fn at(path: PathBuf) -> Result<Found> {
    let output = query(&path, &["--version"]);
    let output = output.context(|| format!("cannot start {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    match Version::parse(&text) {
        Some(version) if version >= version::OLDEST => Ok(Found { path, version, line }),
        Some(version) => Err(Error::host(format!("{} is version {version}", path.display()))
            .hint(format!("version {} or newer is required", version::OLDEST))),
        None => Err(Error::host(format!("{} does not report its version", path.display()))
            .hint("is it QEMU? `--version` should print `QEMU emulator version …`")),
    }
}

/// Runs `program` with these arguments and returns its output.
///
/// It runs in a process group of its own: Ctrl-C goes to every process of the terminal's group, and a program ended by it
/// would be reported as the reason in place of Ctrl-C.
pub(super) fn query(program: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).output()
}
