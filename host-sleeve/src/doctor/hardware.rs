//! Confidential computing hardware.
//!
//! Invariant: hardware is reported as offered by the host, never as working, until there is a backend that has run on it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::backends::finding::{Finding, lacks, optional};

/// The text for hardware that the host offers.
const OFFERED: &str = "the host offers it; this version has no backend for it";

/// One finding for each kind of hardware.
pub(super) fn all() -> [Finding; 3] {
    let root = Path::new("/");
    [nitro(root), snp(root), tdx(root)]
}

fn nitro(root: &Path) -> Finding {
    unsupported(
        "AWS Nitro Enclaves",
        match opens(root, "/dev/nitro_enclaves") {
            Ok(()) => OFFERED.to_owned(),
            Err(Device::Absent) => {
                "no /dev/nitro_enclaves: only an EC2 parent instance with enclaves enabled has it".to_owned()
            }
            Err(Device::Refused(why)) => why,
        },
    )
}

/// KVM must offer it, and `/dev/sev` must give access to the secure processor. A guest of SEV-SNP, which has
/// `/dev/sev-guest`, cannot run others (Linux, `Documentation/virt/coco/sev-guest.rst`).
fn snp(root: &Path) -> Finding {
    let offered = is_on(root, "/sys/module/kvm_amd/parameters/sev_snp");
    let is_guest = !matches!(opens(root, "/dev/sev-guest"), Err(Device::Absent));
    unsupported(
        "AMD SEV-SNP",
        match (offered, is_guest, opens(root, "/dev/sev")) {
            (_, true, _) => {
                "this machine is itself an SEV-SNP guest (/dev/sev-guest) and cannot run others".to_owned()
            }
            (false, ..) => "this host's KVM does not offer it".to_owned(),
            (true, _, Ok(())) => OFFERED.to_owned(),
            (true, _, Err(Device::Absent)) => {
                "KVM offers it, but there is no /dev/sev: the driver of the secure processor (ccp) is missing"
                    .to_owned()
            }
            (true, _, Err(Device::Refused(why))) => format!("KVM offers it, but {why}"),
        },
    )
}

fn tdx(root: &Path) -> Finding {
    let offered = is_on(root, "/sys/module/kvm_intel/parameters/tdx");
    let found = if offered { OFFERED } else { "this host's KVM does not offer it" };
    unsupported("Intel TDX", found.to_owned())
}

fn unsupported(what: &'static str, found: String) -> Finding {
    optional(lacks(what, found, None))
}

/// Why a device cannot be used.
enum Device {
    Absent,
    Refused(String),
}

fn opens(root: &Path, device: &str) -> Result<(), Device> {
    match File::options().read(true).write(true).open(below(root, device)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Device::Absent),
        Err(error) => Err(Device::Refused(format!("{device} cannot be opened: {error}"))),
    }
}

/// Whether a KVM module's parameter is on.
fn is_on(root: &Path, parameter: &str) -> bool {
    let value = std::fs::read_to_string(below(root, parameter)).unwrap_or_default();
    matches!(value.trim(), "Y" | "1")
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings on a host with these files.
    fn findings(files: &[(&str, &str)]) -> [Finding; 3] {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = below(root.path(), path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        [nitro(root.path()), snp(root.path()), tdx(root.path())]
    }

    #[test]
    fn hardware_without_a_backend_is_reported_as_offered_and_never_as_working() {
        const SNP: (&str, &str) = ("/sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        const TDX: (&str, &str) = ("/sys/module/kvm_intel/parameters/tdx", "Y\n");
        let all = findings(&[("/dev/nitro_enclaves", ""), ("/dev/sev", ""), SNP, TDX]);
        assert!(all.iter().all(|one| !one.works && one.optional && one.found == OFFERED), "{all:?}");
        let none = findings(&[(SNP.0, "N\n"), ("/dev/sev", "")]);
        assert!(none.iter().all(|one| !one.works && one.optional && one.found != OFFERED), "{none:?}");
    }

    #[test]
    fn a_kvm_parameter_alone_is_not_sufficient() {
        const SNP: (&str, &str) = ("/sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        let [_, snp, _] = findings(&[SNP]);
        assert!(snp.found.contains("no /dev/sev"), "{snp:?}");
        let [_, snp, _] = findings(&[SNP, ("/dev/sev", ""), ("/dev/sev-guest", "")]);
        assert!(snp.found.contains("itself an SEV-SNP guest"), "{snp:?}");
    }
}
