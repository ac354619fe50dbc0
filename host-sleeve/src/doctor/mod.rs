//! What this host can run.
//!
//! Invariant: an item is reported as working only if it was tested, as far as a test leaves no trace; each missing item comes
//! with the one command that installs it.

mod hardware;
mod release;

use cloister_image::oci::Architecture;
use serde::Serialize;

use crate::backends::finding::{Finding, failed, lacks, works};
use crate::backends::list;
use crate::install;
use crate::state::Root;

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
    let mut findings = vec![runtime(), os()];
    for backend in list::all() {
        findings.extend(backend.probe().await);
    }
    findings.extend(hardware::all());
    let ready = findings.iter().all(|finding| finding.works || finding.optional);
    Diagnosis { ready, findings }
}

fn runtime() -> Finding {
    match Root::open().and_then(|root| Ok((install::cache("tmp")?, root))) {
        Ok((cache, root)) => {
            works("directories", format!("{} and {}", root.path().display(), cache.display()))
        }
        Err(error) => failed("directories", &error),
    }
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
