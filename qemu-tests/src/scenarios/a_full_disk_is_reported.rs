//! A full disk: what was to be written there is missing as a whole, and the message names the disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::lab::{Finished, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A build whose image does not fit.
pub(super) const BUILD: Scenario =
    Scenario { name: "a_build_on_a_full_disk_leaves_nothing_and_reports_it", host: build, guest };

/// A run that cannot start.
pub(super) const RUN: Scenario =
    Scenario { name: "a_run_on_a_full_disk_boots_nothing_and_leaves_nothing", host: run, guest };

/// A disk that fills while the enclave runs.
pub(super) const LOGS: Scenario =
    Scenario { name: "a_disk_full_of_logs_loses_logs_but_does_not_stop_the_service", host: logs, guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], restart: never}}}";

/// Bytes that the service writes in total: more than fits on [`SMALL`].
const SAID: usize = 4 * 1024 * 1024;

/// A disk that holds an enclave's record and console, but not the service's output.
const SMALL: &str = "size=1m";

/// A disk that holds nothing.
const FULL: &str = "size=4k,nr_inodes=2";

/// A disk on which a file can be started but not finished: the kernel alone has four megabytes.
const LITTLE: &str = "size=2m";

fn build(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let manifest = lab.manifest(MANIFEST)?;
    let from = format!("dir:{}", root.display());
    let disk = disk(lab);
    let image = disk.join("app.cloister");
    let args = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    for options in [FULL, LITTLE] {
        let (finished, left) = lab.sleeve(&args).finish_on_disk(&disk, options)?;
        reports_full(&finished, &disk)?;
        expect_eq(&left, &Vec::new(), "what is left on the disk")?;
    }
    // The same where only the temporary files do not fit.
    let whole = lab.folder().join("app.cloister");
    let args = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&whole)?];
    let sleeve = lab.sleeve(&args).env("CLOISTER_CACHE", path_str(&disk)?);
    let (finished, left) = sleeve.finish_on_disk(&disk, FULL)?;
    reports_full(&finished, &disk)?;
    expect(
        left.iter().all(|path| Path::new(path).ends_with("tmp")),
        format_args!("left on the disk: {left:?}"),
    )?;
    expect(!whole.exists(), "a failed build leaves no image")
}

fn run(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let disk = disk(lab);
    let args = ["run", path_str(&image)?, "--name", "web"];
    // There is space for the directory alone, and for the directory and its lock.
    for options in [FULL, "size=4k,nr_inodes=3"] {
        let sleeve = lab.sleeve(&args).env("CLOISTER_RUNTIME_DIR", path_str(&disk)?);
        let (finished, left) = sleeve.finish_on_disk(&disk, options)?;
        reports_full(&finished, &disk)?;
        expect_eq(&left, &Vec::new(), "what is left in the runtime directory")?;
    }
    let sleeve = lab.sleeve(&args).env("CLOISTER_CACHE", path_str(&disk)?);
    let (finished, left) = sleeve.finish_on_disk(&disk, LITTLE)?;
    reports_full(&finished, &disk)?;
    expect(
        left.iter().all(|path| Path::new(path).ends_with("tmp")),
        format_args!("left on the disk: {left:?}"),
    )?;
    let ps = lab.sleeve(&["ps", "--all", "--json"]).finish()?;
    expect_eq(&ps.json()?, &serde_json::json!([]), "what ps shows")?;
    nothing_in(&lab.folder().join("run"))
}

fn logs(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let disk = disk(lab);
    let sleeve = lab.sleeve(&["run", path_str(&image)?, "--name", "web"]);
    let sleeve = sleeve.env("CLOISTER_RUNTIME_DIR", path_str(&disk)?).limit(crate::lab::BOOT_LIMIT);
    let (finished, _) = sleeve.finish_on_disk(&disk, SMALL)?;
    finished.expect_code(7)?;
    expect_in(&finished.stderr, "cannot write the log: No space left on device", "the warning")
}

fn reports_full(finished: &Finished, disk: &Path) -> Outcome {
    finished.expect_code(125)?;
    expect_in(&finished.stderr, "No space left on device", "the reason")?;
    expect_in(&finished.stderr, path_str(disk)?, "where")?;
    expect_in(&finished.stderr, "hint:", "the message")
}

fn disk(lab: &Lab) -> PathBuf {
    lab.folder().join("disk")
}

fn nothing_in(folder: &Path) -> Result<(), Failure> {
    let left: Vec<PathBuf> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    expect_eq(&left, &Vec::new(), "what is left in the runtime directory")
}

fn guest(_args: &[String]) -> ExitCode {
    let line = [b"0123456789abcdef".repeat(63).as_slice(), b"\n"].concat();
    let mut out = std::io::stdout();
    let written = (0..SAID / line.len()).try_for_each(|_| out.write_all(&line));
    if written.is_ok() { ExitCode::from(7) } else { ExitCode::FAILURE }
}
