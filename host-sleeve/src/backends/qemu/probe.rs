//! Tests of what QEMU's backends need on this host.
//!
//! Invariant: everything reported as working was tested, as far as a test leaves no trace.

use std::fs;

use cloister_image::digest::Digest;
use cloister_image::oci::Architecture;
use cloister_image::ramdisk;

use crate::backends::finding::{Finding, failed, lacks, optional, works};
use crate::error::Result;
use crate::install;

use super::boot::AnonymousFile;
use super::found::{Found, find};
use super::kvm;
use super::vsock::{VSOCK_DEVICE, find_vsock, try_vsock};

/// QEMU itself, its vsock and KVM.
pub(super) async fn all() -> Vec<Finding> {
    let qemu = find().await;
    vec![program(&qemu), vsock().await, kvm(&qemu).await]
}

fn program(qemu: &Result<Found>) -> Finding {
    match qemu {
        Ok(found) => works("QEMU", format!("version {} at {}", found.version, found.path.display())),
        Err(error) => failed("QEMU", error),
    }
}

async fn vsock() -> Finding {
    const WHAT: &str = "vsock";
    let program = match find_vsock() {
        Ok(None) => return works(WHAT, VSOCK_DEVICE),
        Ok(Some(program)) => program,
        Err(error) => return failed(WHAT, &error),
    };
    let scratch = match install::cache("tmp") {
        Ok(scratch) => scratch,
        // The finding about the cache contains the fix.
        Err(error) => return lacks(WHAT, format!("not tested: {error}"), None),
    };
    match try_vsock(&program, &scratch).await {
        Ok(()) => works(WHAT, format!("{}, not {}", program.display(), VSOCK_DEVICE)),
        Err(error) => {
            let reasons = error.reasons().join(": ");
            lacks(WHAT, format!("{error}: {reasons}"), Some("cargo install --locked vhost-device-vsock"))
        }
    }
}

async fn kvm(qemu: &Result<Found>) -> Finding {
    const WHAT: &str = "KVM";
    let answer = match (qemu, kernel()) {
        (Ok(qemu), Some((kernel, digest))) => kvm::test_again(qemu, &kernel, &digest).await,
        _ => return optional(lacks(WHAT, "not tested: this requires QEMU and the Cloister OS", None)),
    };
    if answer.works {
        return optional(works(WHAT, "a trial boot succeeded"));
    }
    optional(lacks(WHAT, format!("{}: CPUs run under TCG, which is slower", answer.why), answer.fix))
}

fn kernel() -> Option<(AnonymousFile, Digest)> {
    let architecture = Architecture::native()?;
    let directory = install::os(architecture.name()).ok()?;
    let (release, _) = ramdisk::read_os(&directory, architecture).ok()?;
    let file = fs::File::open(ramdisk::kernel_path(&directory)).ok()?;
    Some((AnonymousFile::from_file(file), release.kernel.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_missing_program_is_reported_with_the_command_that_installs_it() {
        let error = Error::host("QEMU is not installed").hint("apt install qemu-system-x86");
        let finding = program(&Err(error));
        assert!(!finding.works && !finding.optional);
        assert_eq!(finding.fix.as_deref(), Some("apt install qemu-system-x86"));
    }
}
