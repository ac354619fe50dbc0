//! The hardware that encloses by itself.
//!
//! Its law: what the host offers is told as an offer. Nothing of it "works" before there is a backend that has run on it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::backends::finding::{Finding, lacks, optional};

/// What is said of hardware that is there.
const OFFERED: &str = "the host offers it; this version has no backend for it";

/// One finding each.
pub(super) fn all() -> [Finding; 3] {
    let root = Path::new("/");
    [nitro(root), snp(root), tdx(root)]
}

fn nitro(root: &Path) -> Finding {
    told(
        "AWS Nitro Enclaves",
        match opens(root, "/dev/nitro_enclaves") {
            Ok(()) => OFFERED.to_owned(),
            Err(Device::Absent) => {
                "no /dev/nitro_enclaves: a parent instance with enclaves enabled has it".to_owned()
            }
            Err(Device::Refused(why)) => why,
        },
    )
}

/// KVM must offer it, the secure processor must answer behind `/dev/sev`, and a guest of SEV-SNP, which has
/// `/dev/sev-guest`, holds no others (Linux, `Documentation/virt/coco/sev-guest.rst`).
fn snp(root: &Path) -> Finding {
    let offered = is_on(root, "/sys/module/kvm_amd/parameters/sev_snp");
    let is_guest = !matches!(opens(root, "/dev/sev-guest"), Err(Device::Absent));
    told(
        "AMD SEV-SNP",
        match (offered, is_guest, opens(root, "/dev/sev")) {
            (_, true, _) => {
                "this machine is itself enclosed by it (/dev/sev-guest), and can enclose no other".to_owned()
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
    told("Intel TDX", found.to_owned())
}

fn told(what: &'static str, found: String) -> Finding {
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

    /// Says of each finding whether it is an offer, on a host with these files.
    fn offers(files: &[(&str, &str)]) -> [Finding; 3] {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = below(root.path(), path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        [nitro(root.path()), snp(root.path()), tdx(root.path())]
    }

    #[test]
    fn hardware_without_a_backend_is_an_offer_and_never_works() {
        const SNP: (&str, &str) = ("/sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        const TDX: (&str, &str) = ("/sys/module/kvm_intel/parameters/tdx", "Y\n");
        let all = offers(&[("/dev/nitro_enclaves", ""), ("/dev/sev", ""), SNP, TDX]);
        assert!(all.iter().all(|one| !one.works && one.optional && one.found == OFFERED), "{all:?}");
        let none = offers(&[(SNP.0, "N\n"), ("/dev/sev", "")]);
        assert!(none.iter().all(|one| !one.works && one.optional && one.found != OFFERED), "{none:?}");
    }

    #[test]
    fn a_parameter_alone_is_no_secure_processor() {
        const SNP: (&str, &str) = ("/sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        let [_, snp, _] = offers(&[SNP]);
        assert!(snp.found.contains("no /dev/sev"), "{snp:?}");
        let [_, snp, _] = offers(&[SNP, ("/dev/sev", ""), ("/dev/sev-guest", "")]);
        assert!(snp.found.contains("itself enclosed"), "{snp:?}");
    }
}
