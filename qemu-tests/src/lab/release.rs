//! A modified OS release: another program as PID 1, a missing file, more arguments for the kernel.
//!
//! Invariant: it starts from the shipped release and is packed in the same way; a scenario states the difference in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Lab, path_str};
use crate::scenario::{Failure, expect};

/// The contents of the shipped ramdisk.
const SHIPPED: &str = include_str!("../../../rootfs/ramdisk1.list");

/// The name prefix of programs that are packed for tests only, and their directory among the guest's programs.
const TRIAL: &str = "trial-";
const TRIALS: &str = "examples";

/// The guest half of every scenario, by its name in the list.
const PROBE: &str = "probe";

/// The supervisor, by its name in the list.
const SUPERVISOR: &str = "cloister-supervisor";

/// Why a scenario that needs the test kernel does not run.
const NO_TEST_KERNEL: &str = "no --test-kernel was given: its image is built by `scripts/kernel --variant tsm-test`, which prints its path";

/// A release to be packed.
#[derive(Clone, Debug)]
pub struct Release {
    list: Vec<String>,
    trial: Option<&'static str>,
    more_cmdline: &'static str,
    kernel: Kernel,
}

/// A kernel of `scripts/kernel`.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Shipped,
    /// The variant `tsm-test`.
    Test,
}

impl Default for Release {
    fn default() -> Self {
        let list = SHIPPED.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        Self { list, trial: None, more_cmdline: "", kernel: Kernel::Shipped }
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

    /// With the guest half of the scenario `name` as the supervisor: it sees the machine as the system's own programs do, and ends
    /// it by [`crate::guest::power_off`].
    #[must_use]
    pub fn with_guest_as_supervisor(mut self, name: &'static str) -> Self {
        self.trial = Some(name);
        self = self.without("/sbin/supervisor").with_file_at("/trial");
        self.list.push(format!("file 0555 /sbin/supervisor {PROBE}"));
        self
    }

    /// With the guest half of the scenario `name` in the place of the supervisor, which is at `path`: it makes preparations as root, and
    /// executes it.
    #[must_use]
    pub fn with_guest_before_supervisor(self, name: &'static str, path: &str) -> Self {
        let mut release = self.with_guest_as_supervisor(name);
        release.list.push(format!("file 0555 {path} {SUPERVISOR}"));
        release
    }

    /// With the kernel that has a driver for reports made by a process (docs/kernel.md). A scenario that uses it has
    /// [`crate::Need::TestKernel`].
    #[must_use]
    pub const fn with_test_kernel(mut self) -> Self {
        self.kernel = Kernel::Test;
        self
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
        let (kernel, built) = self.kernel(release.kernel, &shipped)?;
        fs::copy(kernel, os.join("kernel"))?;
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
        let mut record =
            changed_record(serde_json::from_slice(&record)?, packing.json()?, release.more_cmdline)?;
        if let (Some(built), Some(kernel)) = (built, record.get_mut("kernel").and_then(Value::as_object_mut))
        {
            kernel.extend(built);
        }
        fs::write(os.join("os.json"), record.to_string())?;
        Ok(os)
    }

    /// The image of a kernel, and what the release's record states about it if it is not the shipped one.
    fn kernel(
        &self,
        which: Kernel,
        shipped: &Path,
    ) -> Result<(PathBuf, Option<Map<String, Value>>), Failure> {
        let image = match which {
            Kernel::Shipped => return Ok((shipped.join("kernel"), None)),
            Kernel::Test => self.built().test_kernel.clone(),
        };
        let image = image.ok_or_else(|| Failure::Skipped(NO_TEST_KERNEL.to_owned()))?;
        // scripts/kernel writes it next to each image.
        let built: Map<String, Value> =
            serde_json::from_slice(&fs::read(image.with_file_name("record.json"))?)?;
        let fields = ["sha256", "bytes", "release"].into_iter();
        let fields = fields.filter_map(|name| Some((name.to_owned(), built.get(name)?.clone())));
        Ok((image, Some(fields.collect())))
    }

    /// Puts the program named by a line of the list into `programs`.
    fn provide(&self, line: &str, programs: &Path) -> Result<(), Failure> {
        let Some(name) = line.split_whitespace().nth(3).filter(|name| !programs.join(name).exists()) else {
            return Ok(());
        };
        let guest = &self.built().guest;
        let file = match name {
            PROBE => self.built().probe.clone(),
            trial if trial.starts_with(TRIAL) => guest.join(TRIALS).join(trial),
            program => guest.join(program),
        };
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
