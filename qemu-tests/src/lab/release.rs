//! A release of the operating system that was changed: another program as PID 1, a file less, more words for the kernel.
//!
//! Its law: it begins as the release that is shipped, and is packed the way that one is; a story says in a line what is
//! different.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Lab, path_str};
use crate::story::{Failure, expect};

/// What is in the ramdisk that is shipped.
const SHIPPED: &str = include_str!("../../../rootfs/ramdisk1.list");

/// What the names of programs begin with that are packed for trials only, and where they are among the guest's programs.
const TRIAL: &str = "trial-";
const TRIALS: &str = "examples";

/// A release to be packed.
#[derive(Clone, Debug)]
pub struct Release {
    list: Vec<String>,
    words: Option<&'static str>,
    more_cmdline: &'static str,
}

impl Default for Release {
    fn default() -> Self {
        let list = SHIPPED.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        Self { list, words: None, more_cmdline: "" }
    }
}

impl Release {
    /// Without the entry at `path`.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.list.retain(|line| line.split_whitespace().nth(2) != Some(path));
        self
    }

    /// With a file at `path` in place of what is there.
    #[must_use]
    pub fn with_file_at(self, path: &str) -> Self {
        let mut release = self.without(path);
        release.list.push(format!("file 0444 {path} words"));
        release
    }

    /// With an init that does what `how` says (`init/examples/trial-init.rs`).
    #[must_use]
    pub fn with_trial(mut self, how: &'static str) -> Self {
        self.words = Some(how);
        self = self.without("/init").with_file_at("/trial");
        self.list.push("file 0555 /init trial-init".to_owned());
        self
    }

    /// With a supervisor that starts servants and reports what became of them (`init/examples/trial-servants.rs`).
    #[must_use]
    pub fn with_trial_servants(self) -> Self {
        let mut release = self.without("/sbin/supervisor");
        release.list.push("file 0555 /sbin/supervisor trial-servants".to_owned());
        release
    }

    /// With more words on the kernel's command line.
    #[must_use]
    pub const fn with_cmdline(mut self, words: &'static str) -> Self {
        self.more_cmdline = words;
        self
    }
}

impl Lab {
    /// Packs `release` for the next image and gives its folder, as `CLOISTER_OS` names it.
    pub(super) fn pack(&self, release: &Release) -> Result<PathBuf, Failure> {
        let shipped = self.built().dist.join("share/cloister/os").join(std::env::consts::ARCH);
        let os = self.folder().join(format!("os{}", self.images));
        let programs = os.join("programs");
        fs::create_dir(&os)?;
        fs::create_dir(&programs)?;
        fs::copy(shipped.join("kernel"), os.join("kernel"))?;
        let list = os.join("ramdisk1.list");
        fs::write(&list, release.list.join("\n"))?;
        fs::write(programs.join("words"), release.words.unwrap_or_default())?;
        for line in &release.list {
            self.provide(line, &programs)?;
        }
        let packed = os.join("os.cpio.zst");
        let words = ["os-pack", "--list", path_str(&list)?, "--programs", path_str(&programs)?, "--json"];
        let packing =
            self.sleeve(&[words.as_slice(), &["--output", path_str(&packed)?]].concat()).finish()?;
        packing.expect_code(0)?;
        let record = fs::read(shipped.join("os.json"))?;
        let record = changed_record(serde_json::from_slice(&record)?, packing.json()?, release.more_cmdline)?;
        fs::write(os.join("os.json"), record.to_string())?;
        Ok(os)
    }

    /// Puts the program that a line of the list names into `programs`.
    fn provide(&self, line: &str, programs: &Path) -> Result<(), Failure> {
        let Some(name) = line.split_whitespace().nth(3).filter(|name| !programs.join(name).exists()) else {
            return Ok(());
        };
        let folder = if name.starts_with(TRIAL) { TRIALS } else { "" };
        let file = self.built().guest.join(folder).join(name);
        expect(file.is_file(), format_args!("there is no program {}", file.display()))?;
        Ok(symlink(fs::canonicalize(file)?, programs.join(name))?)
    }
}

/// The shipped release's record with another ramdisk and command line.
fn changed_record(mut record: Value, ramdisk: Value, more: &str) -> Result<Value, Failure> {
    let fields = record.as_object_mut().ok_or_else(|| Failure::broken("os.json is no object"))?;
    let cmdline = fields.get("cmdline").and_then(Value::as_str).unwrap_or_default();
    let cmdline = format!("{cmdline} {more}");
    fields.insert("cmdline".to_owned(), json!(cmdline.trim_end()));
    fields.insert("ramdisk".to_owned(), ramdisk);
    Ok(record)
}
