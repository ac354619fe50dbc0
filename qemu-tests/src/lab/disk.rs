//! A small disk: a tmpfs in its own mount namespace, so that a scenario can fill it and no other process sees it.
//!
//! Invariant: it needs no root, only a kernel that allows user namespaces; without them the scenario is skipped, not failed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Finished, Sleeve, path_str};
use crate::scenario::Failure;

/// Mounts a disk at `$1` with the options `$2`, runs the arguments after `$3`, and writes a list of the disk's files to `$3`.
const SCRIPT: &str = r#"
mount -t tmpfs -o "mode=0700,$2" small "$1" || exit 77
disk=$1 list=$3
shift 3
"$@"
code=$?
find "$disk" -mindepth 1 >"$list"
exit "$code"
"#;

/// The script's exit code when it is not allowed to mount.
const NO_MOUNT: i32 = 77;

impl Sleeve {
    /// Runs it until it exits, with a disk at `disk` mounted with `options` (`size=64k`, tmpfs(5)). Returns the paths of all files
    /// on the disk afterwards.
    pub fn finish_on_disk(self, disk: &Path, options: &str) -> Result<(Finished, Vec<String>), Failure> {
        std::fs::create_dir_all(disk)?;
        let list = disk.with_extension("list");
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        let mut shell = Command::new("unshare");
        shell.arg("--mount").args(user).args(["sh", "-c", SCRIPT, "sh"]);
        shell.args([path_str(disk)?, options, path_str(&list)?]);
        let finished = self.through(shell).finish()?;
        if finished.code == Some(NO_MOUNT) || !list.exists() {
            return Err(Failure::Skipped(format!("cannot mount a disk here: {}", finished.stderr)));
        }
        let left = std::fs::read_to_string(&list)?.lines().map(str::to_owned).collect();
        Ok((finished, left))
    }

    /// The same command as the last arguments of `runner`.
    fn through(mut self, mut runner: Command) -> Self {
        runner.arg(self.command.get_program()).args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            if let Some(value) = value {
                runner.env(key, value);
            }
        }
        runner.stdin(std::process::Stdio::null()).process_group(0);
        self.command = runner;
        self.leads = true;
        self
    }
}
