//! A small disk: a tmpfs in a mount namespace of its own, so that a story can fill it and nobody else sees it.
//!
//! Its law: it needs no root, only a kernel that lets users have namespaces; a machine without is told, not failed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Finished, Sleeve, path_str};
use crate::story::Failure;

/// Mounts a disk at `$1` with the options `$2`, runs what comes after `$3`, and leaves a list of what lies there in `$3`.
const SCRIPT: &str = r#"
mount -t tmpfs -o "mode=0700,$2" small "$1" || exit 77
disk=$1 list=$3
shift 3
"$@"
code=$?
find "$disk" -mindepth 1 >"$list"
exit "$code"
"#;

/// The script's exit code when it may not mount.
const NO_MOUNT: i32 = 77;

impl Sleeve {
    /// Runs it to its end with a disk at `disk` that was mounted with `options` (`size=64k`, tmpfs(5)), and gives the
    /// paths of everything that lies on it then.
    pub fn finish_on_disk(self, disk: &Path, options: &str) -> Result<(Finished, Vec<String>), Failure> {
        std::fs::create_dir_all(disk)?;
        let list = disk.with_extension("list");
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        let mut shell = Command::new("unshare");
        shell.arg("--mount").args(user).args(["sh", "-c", SCRIPT, "sh"]);
        shell.args([path_str(disk)?, options, path_str(&list)?]);
        let finished = self.through(shell).finish()?;
        if finished.code == Some(NO_MOUNT) || !list.exists() {
            return Err(Failure::Skipped(format!("no disk can be mounted here: {}", finished.stderr)));
        }
        let left = std::fs::read_to_string(&list)?.lines().map(str::to_owned).collect();
        Ok((finished, left))
    }

    /// The same command as the last words of `runner`.
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
