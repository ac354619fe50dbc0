//! The measurement registers of the platform's security module, for the status.
//!
//! Invariant: they are shown as the module returns them. Verifying them takes evidence and is left to others.

use std::io;
use std::path::Path;

use cloister_nsm::Module;
use cloister_sys::nsm::Nsm;
use cloister_wire::control::Register;
use cloister_wire::event::BOOT_REGISTER;

/// The registers in use: the image (0), the system (1), the application (2), the parent's role (3) and its instance
/// (4), the signer (8), and the one that init extends.
const SHOWN: [u16; 7] = [0, 1, 2, 3, 4, 8, BOOT_REGISTER];

/// Reads them on the machine whose root directory is `root`; none if there is no module.
///
/// # Errors
/// If there is a module that does not respond.
pub fn read(root: &Path) -> io::Result<Vec<Register>> {
    let nsm = match Nsm::open(root) {
        Ok(nsm) => nsm,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let module = Module::over(|request| nsm.exchange(request));
    let read = |index| {
        let register = module.pcr(index).map_err(io::Error::other)?;
        Ok(Register { index, value: digits(&register.value), locked: register.locked })
    };
    SHOWN.into_iter().map(read).collect()
}

fn digits(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_module_has_no_registers() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
    }

    #[test]
    fn a_module_that_does_not_respond_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/nsm"), "").unwrap();
        assert!(read(root.path()).is_err());
    }

    #[test]
    fn values_are_lower_case_hexadecimal() {
        assert_eq!(digits(&[0x00, 0xff, 0x1a]), "00ff1a");
    }
}
