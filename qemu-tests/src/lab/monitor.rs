//! A second monitor of the first QEMU in `PATH`: the sleeve keeps the other for itself.
//!
//! Its law: QEMU is started as it would be, with one more option.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{COMMAND_LIMIT, Lab, Running, path_str};
use crate::story::{Failure, expect_eq};

/// Stands before QEMU in `PATH`.
const WITH_MONITOR: &str = "#!/bin/sh
PATH=${PATH#*:}
exec qemu-system-x86_64 \"$@\" -qmp unix:MONITOR,server=on,wait=off
";

/// How QEMU says that a command was executed.
const DONE: &str = "{\"return\"";

/// Where one asks QEMU for something.
#[derive(Debug)]
pub struct Monitor(PathBuf);

impl Lab {
    /// Runs an enclave whose machine can be told something behind the sleeve's back.
    pub fn run_with_monitor(&self, image: &Path, words: &[&str]) -> Result<(Running, Monitor), Failure> {
        let (tools, monitor) = (self.folder().join("tools"), self.folder().join("monitor"));
        let qemu = tools.join("qemu-system-x86_64");
        fs::create_dir(&tools)?;
        fs::write(&qemu, WITH_MONITOR.replace("MONITOR", path_str(&monitor)?))?;
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
        Ok((self.run_with(image, words, &[("PATH", &path)])?, Monitor(monitor)))
    }
}

impl Monitor {
    /// Has QEMU execute one command of `QMP`.
    pub fn execute(&self, command: &str) -> Result<(), Failure> {
        let mut monitor = UnixStream::connect(&self.0)?;
        monitor.set_read_timeout(Some(COMMAND_LIMIT))?;
        let words = format!("{{\"execute\":\"qmp_capabilities\"}}{{\"execute\":\"{command}\"}}");
        monitor.write_all(words.as_bytes())?;
        // What it has not executed it forgets when its client goes.
        let done =
            BufReader::new(monitor).lines().map_while(Result::ok).filter(|line| line.starts_with(DONE));
        expect_eq(&done.take(2).count(), &2, "what QEMU says it has done")
    }
}
