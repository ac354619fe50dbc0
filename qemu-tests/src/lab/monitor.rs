//! A second monitor for the first QEMU in `PATH`: the sleeve reserves the other one for itself.
//!
//! Invariant: QEMU is started as usual, with one additional option.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{COMMAND_LIMIT, Lab, Running, path_str};
use crate::scenario::{Failure, expect_eq};

/// A wrapper that precedes QEMU in `PATH`.
const WITH_MONITOR: &str = "#!/bin/sh
PATH=${PATH#*:}
exec qemu-system-x86_64 \"$@\" -qmp unix:MONITOR,server=on,wait=off
";

/// The start of QEMU's response to an executed command.
const DONE: &str = "{\"return\"";

/// The address of QEMU's monitor.
#[derive(Debug)]
pub struct Monitor(PathBuf);

impl Lab {
    /// Runs an enclave whose machine can be controlled without the sleeve.
    pub fn run_with_monitor(&self, image: &Path, args: &[&str]) -> Result<(Running, Monitor), Failure> {
        let (tools, monitor) = (self.folder().join("tools"), self.folder().join("monitor"));
        let qemu = tools.join("qemu-system-x86_64");
        fs::create_dir(&tools)?;
        fs::write(&qemu, WITH_MONITOR.replace("MONITOR", path_str(&monitor)?))?;
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
        Ok((self.run_with(image, args, &[("PATH", &path)])?, Monitor(monitor)))
    }
}

impl Monitor {
    /// Executes one `QMP` command.
    pub fn execute(&self, command: &str) -> Result<(), Failure> {
        let mut monitor = UnixStream::connect(&self.0)?;
        monitor.set_read_timeout(Some(COMMAND_LIMIT))?;
        let commands = format!("{{\"execute\":\"qmp_capabilities\"}}{{\"execute\":\"{command}\"}}");
        monitor.write_all(commands.as_bytes())?;
        // QEMU drops the commands it has not executed when its client disconnects.
        let done =
            BufReader::new(monitor).lines().map_while(Result::ok).filter(|line| line.starts_with(DONE));
        expect_eq(&done.take(2).count(), &2, "the commands that QEMU has executed")
    }
}
