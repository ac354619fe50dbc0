//! What this host can run.
//!
//! Invariant: an item is reported as working only if it was tested, as far as a test leaves no trace; each missing item comes
//! with the one command that installs it.

mod hardware;
mod release;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cloister_image::oci::Architecture;
use serde::Serialize;

use crate::backends::finding::{Finding, failed, lacks, works};
use crate::backends::list;
use crate::error::{ErrorContext, Result};
use crate::install;
use crate::state::Root;

/// Size in bytes of the file that is written to test a directory: more than a record and the first lines of the logs.
const SAMPLE: u64 = 64 * 1024;

/// The findings on this host.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// Whether enclaves can be built and run here.
    pub(crate) ready: bool,
    /// One per item.
    pub(crate) findings: Vec<Finding>,
}

/// Examines the host.
pub(crate) async fn diagnose() -> Diagnosis {
    let mut findings = vec![state(), cache(), os()];
    for backend in list::all() {
        findings.extend(backend.probe().await);
    }
    findings.extend(hardware::all());
    let ready = findings.iter().all(|finding| finding.works || finding.optional);
    Diagnosis { ready, findings }
}

fn state() -> Finding {
    directory("state directory", Root::open().map(|root| root.path().to_owned()))
}

fn cache() -> Finding {
    directory("cache directory", install::cache("tmp"))
}

fn directory(what: &'static str, opened: Result<PathBuf>) -> Finding {
    match opened.and_then(|path| write_into(&path).map(|()| path)) {
        Ok(path) => works(what, path.display().to_string()),
        Err(error) => failed(what, &error),
    }
}

/// Whether a file can be written in this directory. It is removed again.
fn write_into(directory: &Path) -> Result<()> {
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".doctor-").tempfile_in(directory)?;
        io::copy(&mut io::repeat(0).take(SAMPLE), &mut file)?;
        // Some file systems report a full disk only now.
        file.as_file().sync_all()?;
        file.close()
    };
    write().context(|| format!("cannot write into {}", directory.display()))
}

fn os() -> Finding {
    const WHAT: &str = "Cloister OS";
    const FIX: &str = "./scripts/build";
    let Some(architecture) = Architecture::native() else {
        return lacks(WHAT, format!("{} is not supported", std::env::consts::ARCH), None);
    };
    let directory = match install::os(architecture.name()) {
        Ok(directory) => directory,
        Err(error) => return failed(WHAT, &error),
    };
    match release::check(&directory, architecture) {
        Ok(release) => works(WHAT, format!("version {} in {}", release.version, directory.display())),
        Err(why) => lacks(WHAT, why, Some(FIX)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state::full_disk;

    #[test]
    fn a_directory_on_a_full_disk_is_reported_with_the_reason_and_nothing_is_left_in_it() {
        let name = "a_directory_on_a_full_disk_is_reported_with_the_reason_and_nothing_is_left_in_it";
        if !full_disk::is_alone(module_path!(), name) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        assert!(directory("cache directory", Ok(path.clone())).works);
        full_disk::file_limit(Some(7));
        let finding = directory("cache directory", Ok(path.clone()));
        full_disk::file_limit(None);
        assert!(!finding.works);
        let expected = format!("cannot write into {}: ", path.display());
        assert!(finding.found.starts_with(&expected), "{}", finding.found);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_reported() {
        let finding = directory("state directory", Ok("/proc/self".into()));
        assert!(!finding.works && finding.found.starts_with("cannot write into /proc/self: "), "{finding:?}");
    }
}
