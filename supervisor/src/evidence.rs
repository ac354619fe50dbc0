//! What provides this machine's evidence, opened while the supervisor still has the privileges for it.
//!
//! Invariant: only devices that drivers of the measured kernel created are used. The attestor gets a descriptor; it opens nothing by
//! a path of this machine, and no other process gets one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cloister_sys::nsm::Nsm;
use cloister_sys::tsm::{Folder, ROOT, TsmError};
use cloister_wire::attestor::Provider;

use crate::confine::ATTESTOR_UID;

/// The attestor's entry there. It exists as long as the machine: successors of supervisor and attestor use it again.
const ENTRY: &str = "attestor";

/// The provider of the machine whose root directory is `root`; `None` if it has none. On TDX the device alone is none: its local
/// reports can be checked by no one outside the processor, and quotes come through configfs-tsm only.
///
/// # Errors
/// If there is one that cannot be opened.
pub fn open(root: &Path) -> io::Result<Option<(Provider, OwnedFd)>> {
    if let Some(device) = Nsm::open_if_present(root)? {
        return Ok(Some((Provider::Nsm, device)));
    }
    match Folder::provide(&root.join(ROOT.trim_start_matches('/')), ENTRY, ATTESTOR_UID) {
        Ok(entry) => Ok(Some((Provider::Tsm, entry))),
        Err(TsmError::Absent(_)) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_machine_without_devices_has_no_provider() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path()).unwrap().is_none());
    }

    #[test]
    fn a_provider_of_reports_that_cannot_be_used_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        // A directory without attributes, or without the privileges for it.
        fs::create_dir_all(root.path().join(ROOT.trim_start_matches('/'))).unwrap();
        let error = open(root.path()).unwrap_err();
        assert!(error.to_string().starts_with("cannot access the entry"), "{error}");
    }

    #[test]
    fn a_security_module_is_used_first() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/nsm"), "").unwrap();
        assert!(matches!(open(root.path()), Ok(Some((Provider::Nsm, _)))));
    }
}
