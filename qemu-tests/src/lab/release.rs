//! A modified OS release: another program as PID 1, a missing file, more arguments for the kernel.
//!
//! Invariant: it starts from the shipped release and is packed in the same way; a scenario states the difference in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Lab, path_str};
use crate::scenario::{Failure, expect};

/// The contents of the shipped ramdisk.
const SHIPPED: &str = include_str!("../../../rootfs/ramdisk1.list");

/// The name prefix of programs that are packed for tests only, and their directory among the guest's programs.
const TRIAL: &str = "trial-";
const TRIALS: &str = "examples";

/// A release to be packed.
#[derive(Clone, Debug)]
pub struct Release {
    list: Vec<String>,
    trial: Option<&'static str>,
    more_cmdline: &'static str,
}

impl Default for Release {
    fn default() -> Self {
        let list = SHIPPED.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        Self { list, trial: None, more_cmdline: "" }
    }
}

impl Release {
    /// Without the entry at `path`.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.list.retain(|line| line.split_whitespace().nth(2) != Some(path));
        self
    }

    /// With a file at `path` instead of the shipped entry.
    #[must_use]
    pub fn with_file_at(self, path: &str) -> Self {
        let mut release = self.without(path);
        release.list.push(format!("file 0444 {path} trial"));
        release
    }

    /// With an init that performs the test `how` (`init/examples/trial-init.rs`).
    #[must_use]
    pub fn with_trial(mut self, how: &'static str) -> Self {
        self.trial = Some(how);
        self = self.without("/init").with_file_at("/trial");
        self.list.push("file 0555 /init trial-init".to_owned());
        self
    }

    /// With a supervisor that starts servants and reports their results (`init/examples/trial-servants.rs`).
    #[must_use]
    pub fn with_trial_servants(self) -> Self {
        let mut release = self.without("/sbin/supervisor");
        release.list.push("file 0555 /sbin/supervisor trial-servants".to_owned());
        release
    }

    /// With additional arguments on the kernel's command line.
    #[must_use]
    pub const fn with_cmdline(mut self, args: &'static str) -> Self {
        self.more_cmdline = args;
        self
    }
}

impl Lab {
    /// Packs `release` for the next image and returns its directory, in the form that `CLOISTER_OS` names it.
    pub(super) fn pack(&self, release: &Release) -> Result<PathBuf, Failure> {
        let shipped = self.built().dist.join("share/cloister/os").join(std::env::consts::ARCH);
        let os = self.folder().join(format!("os{}", self.images));
        let programs = os.join("programs");
        fs::create_dir(&os)?;
        fs::create_dir(&programs)?;
        fs::copy(shipped.join("kernel"), os.join("kernel"))?;
        let list = os.join("ramdisk1.list");
        fs::write(&list, release.list.join("\n"))?;
        fs::write(programs.join("trial"), release.trial.unwrap_or_default())?;
        for line in &release.list {
            self.provide(line, &programs)?;
        }
        let packed = os.join("os.cpio.zst");
        let args = ["os-pack", "--list", path_str(&list)?, "--programs", path_str(&programs)?, "--json"];
        let packing = self.sleeve(&[args.as_slice(), &["--output", path_str(&packed)?]].concat()).finish()?;
        packing.expect_code(0)?;
        let record = fs::read(shipped.join("os.json"))?;
        let record = changed_record(serde_json::from_slice(&record)?, packing.json()?, release.more_cmdline)?;
        fs::write(os.join("os.json"), record.to_string())?;
        Ok(os)
    }

    /// Puts the program named by a line of the list into `programs`.
    fn provide(&self, line: &str, programs: &Path) -> Result<(), Failure> {
        let Some(name) = line.split_whitespace().nth(3).filter(|name| !programs.join(name).exists()) else {
            return Ok(());
        };
        let folder = if name.starts_with(TRIAL) { TRIALS } else { "" };
        let file = self.built().guest.join(folder).join(name);
        expect(file.is_file(), format_args!("missing program {}", file.display()))?;
        Ok(symlink(fs::canonicalize(file)?, programs.join(name))?)
    }
}

/// The shipped release's record with a different ramdisk and command line.
fn changed_record(mut record: Value, ramdisk: Value, more: &str) -> Result<Value, Failure> {
    let fields = record.as_object_mut().ok_or_else(|| Failure::failed("os.json is not a JSON object"))?;
    let cmdline = fields.get("cmdline").and_then(Value::as_str).unwrap_or_default();
    let cmdline = format!("{cmdline} {more}");
    fields.insert("cmdline".to_owned(), json!(cmdline.trim_end()));
    fields.insert("ramdisk".to_owned(), ramdisk);
    Ok(record)
}
