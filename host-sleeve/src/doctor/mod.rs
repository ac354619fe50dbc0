//! What this host can run.
//!
//! Its law: what is said to work has been tried, as far as trying leaves no trace; each thing that is missing comes with
//! the one command that adds it.

mod finding;
mod hardware;
mod release;

use std::fs;

use cloister_image::oci::Architecture;
use cloister_image::ramdisk;
use serde::Serialize;

use crate::backends::qemu::{self, boot::Nameless, kvm};
use crate::error::Result;
use crate::install;
use crate::state::Root;

pub(crate) use finding::Finding;
use finding::{failed, lacks, optional, works};

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// Whether enclaves can be built and run here.
    pub(crate) ready: bool,
    /// One by one.
    pub(crate) findings: Vec<Finding>,
}

/// Looks at the host.
pub(crate) async fn diagnose() -> Diagnosis {
    let qemu = qemu::find();
    let mut findings = vec![runtime(), os(), qemu_finding(&qemu), vsock().await, kvm_finding(&qemu).await];
    findings.push(nitro_machine());
    findings.extend(hardware::all());
    let ready = findings.iter().all(|finding| finding.works || finding.optional);
    Diagnosis { ready, findings }
}

fn runtime() -> Finding {
    match Root::open().and_then(|root| Ok((install::cache("tmp")?, root))) {
        Ok((cache, root)) => works("folders", format!("{} and {}", root.path().display(), cache.display())),
        Err(error) => failed("folders", &error),
    }
}

fn os() -> Finding {
    const WHAT: &str = "Cloister OS";
    const FIX: &str = "./scripts/build";
    let Some(architecture) = Architecture::native() else {
        return lacks(WHAT, format!("there is none for {}", std::env::consts::ARCH), None);
    };
    let folder = match install::os(architecture.name()) {
        Ok(folder) => folder,
        Err(error) => return failed(WHAT, &error),
    };
    match release::check(&folder, architecture) {
        Ok(release) => works(WHAT, format!("version {} in {}", release.version, folder.display())),
        Err(why) => lacks(WHAT, why, Some(FIX)),
    }
}

fn qemu_finding(qemu: &Result<qemu::Found>) -> Finding {
    match qemu {
        Ok(found) => works("QEMU", format!("version {} at {}", found.version, found.path.display())),
        Err(error) => failed("QEMU", error),
    }
}

async fn vsock() -> Finding {
    const WHAT: &str = "vsock";
    let program = match qemu::find_vsock() {
        Ok(None) => return works(WHAT, qemu::VSOCK_DEVICE),
        Ok(Some(program)) => program,
        Err(error) => return failed(WHAT, &error),
    };
    match qemu::try_vsock(&program).await {
        Ok(()) => works(WHAT, format!("{}, not {}", program.display(), qemu::VSOCK_DEVICE)),
        Err(error) => {
            let reasons = error.reasons().join(": ");
            lacks(WHAT, format!("{error}: {reasons}"), Some("cargo install --locked vhost-device-vsock"))
        }
    }
}

async fn kvm_finding(qemu: &Result<qemu::Found>) -> Finding {
    const WHAT: &str = "KVM";
    let answer = match (qemu, kernel()) {
        (Ok(qemu), Some((kernel, digest))) => kvm::ask_again(qemu, &kernel, &digest).await,
        _ => return optional(lacks(WHAT, "not tried: that needs QEMU and the Cloister OS", None)),
    };
    if answer.works {
        return optional(works(WHAT, "a trial boot went well"));
    }
    optional(lacks(WHAT, format!("{}: CPUs are translated, which is slower", answer.why), answer.fix))
}

fn kernel() -> Option<(Nameless, cloister_image::digest::Digest)> {
    let architecture = Architecture::native()?;
    let folder = install::os(architecture.name()).ok()?;
    let (release, _) = ramdisk::read_os(&folder, architecture).ok()?;
    let file = fs::File::open(ramdisk::kernel_path(&folder)).ok()?;
    Some((Nameless::from_file(file), release.kernel.sha256))
}

fn nitro_machine() -> Finding {
    const WHAT: &str = "QEMU's nitro-enclave machine";
    optional(match qemu::nitro::find() {
        Ok(found) => works(WHAT, format!("version {} at {}", found.version, found.path.display())),
        // The one command; where its result is named, `run` says.
        Err(error) => lacks(WHAT, error.to_string(), Some("./scripts/qemu-nitro")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_is_missing_is_told_with_its_cure() {
        let error = Error::host("QEMU is not installed").hint("apt install qemu-system-x86");
        let finding = qemu_finding(&Err(error));
        assert!(!finding.works && !finding.optional);
        assert_eq!(finding.fix.as_deref(), Some("apt install qemu-system-x86"));
    }
}
