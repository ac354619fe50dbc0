//! What this host can run.
//!
//! Its law: what is said to work has been tried, as far as trying leaves no trace; each thing that is missing comes with
//! the one command that adds it.

use std::fs;
use std::path::Path;

use cloister_image::oci::Architecture;
use cloister_image::ramdisk;
use serde::Serialize;

use crate::backends::qemu::{self, boot::Nameless, kvm};
use crate::error::{Error, Result};
use crate::install;
use crate::state::Root;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// Whether it works.
    pub(crate) works: bool,
    /// Whether enclaves run here without it.
    pub(crate) optional: bool,
    /// What was found.
    pub(crate) found: String,
    /// The command that adds what is missing, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

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
    let mut findings = vec![runtime(), os(), qemu_finding(&qemu), vsock(), kvm_finding(&qemu).await];
    findings.extend([nitro_machine(), nitro(), snp(), tdx()]);
    let ready = findings.iter().all(|finding| finding.works || finding.optional);
    Diagnosis { ready, findings }
}

fn works(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, works: true, optional: false, found: found.into(), fix: None }
}

fn lacks(what: &'static str, found: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding { what, works: false, optional: false, found: found.into(), fix: fix.map(str::to_owned) }
}

fn optional(finding: Finding) -> Finding {
    Finding { optional: true, ..finding }
}

fn failed(what: &'static str, error: &Error) -> Finding {
    lacks(what, error.to_string(), error.told().hint.as_deref())
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
    match ramdisk::read_os(&folder, architecture) {
        Ok((release, _)) => works(WHAT, format!("version {} in {}", release.version, folder.display())),
        Err(fault) => lacks(WHAT, fault.to_string(), Some(FIX)),
    }
}

fn qemu_finding(qemu: &Result<qemu::Found>) -> Finding {
    match qemu {
        Ok(found) => works("QEMU", format!("version {} at {}", found.version, found.path.display())),
        Err(error) => failed("QEMU", error),
    }
}

fn vsock() -> Finding {
    match qemu::find_vsock() {
        Ok(None) => works("vsock", qemu::VSOCK_DEVICE),
        Ok(Some(program)) => works("vsock", format!("{} (no {})", program.display(), qemu::VSOCK_DEVICE)),
        Err(error) => failed("vsock", &error),
    }
}

async fn kvm_finding(qemu: &Result<qemu::Found>) -> Finding {
    const WHAT: &str = "KVM";
    let answer = match (qemu, kernel()) {
        (Ok(qemu), Some((kernel, digest))) => kvm::ask(qemu, &kernel, &digest).await,
        _ => return optional(lacks(WHAT, "not tried: that needs QEMU and the Cloister OS", None)),
    };
    if answer.works {
        return optional(works(WHAT, "a trial boot went well"));
    }
    let fix = (!Path::new("/dev/kvm").exists()).then_some("modprobe kvm_intel || modprobe kvm_amd");
    optional(lacks(WHAT, format!("{}: CPUs are translated, which is slower", answer.why), fix))
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

fn nitro() -> Finding {
    device("AWS Nitro Enclaves", "/dev/nitro_enclaves", "a parent instance with enclaves enabled has it")
}

fn snp() -> Finding {
    parameter("AMD SEV-SNP", "/sys/module/kvm_amd/parameters/sev_snp")
}

fn tdx() -> Finding {
    parameter("Intel TDX", "/sys/module/kvm_intel/parameters/tdx")
}

fn device(what: &'static str, path: &str, where_it_is: &str) -> Finding {
    optional(match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => works(what, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            lacks(what, format!("no {path}: {where_it_is}"), None)
        }
        Err(error) => lacks(what, format!("{path}: {error}"), None),
    })
}

/// A capability of the host that its KVM module tells.
fn parameter(what: &'static str, path: &str) -> Finding {
    let value = fs::read_to_string(path).unwrap_or_default();
    optional(match value.trim() {
        "Y" | "1" => works(what, path),
        _ => lacks(what, "this host's KVM does not offer it", None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_cure() {
        let error = Error::host("QEMU is not installed").hint("apt install qemu-system-x86");
        let finding = qemu_finding(&Err(error));
        assert!(!finding.works && !finding.optional);
        assert_eq!(finding.fix.as_deref(), Some("apt install qemu-system-x86"));
    }

    #[test]
    fn hardware_that_is_absent_stops_nobody() {
        let finding = device("a machine of tomorrow", "/dev/no-such-device", "nobody has it");
        assert!(!finding.works && finding.optional);
        assert!(parameter("another", "/no/such/parameter").optional);
    }
}
