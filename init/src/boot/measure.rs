//! Stage `measure`: records in a register, which evidence contains, that the boot is complete.
//!
//! Invariant: the register is locked before anything of the application runs. The launch registers belong to the hypervisor,
//! those above [`event::BOOT_REGISTER`] to the supervisor.

use std::io;
use std::path::Path;

use cloister_nsm::{Module, NsmError};
use cloister_sys::nsm::Nsm;
use cloister_sys::platform::Platform;
use cloister_wire::event;

use super::{Boot, BootError};

/// Extends and locks the register, if the platform has one.
pub fn extend(boot: &mut Boot) -> Result<String, BootError> {
    if boot.platform != Some(Platform::Nitro) {
        return Ok(String::new());
    }
    let nsm = Nsm::open(Path::new("/")).map_err(|error| BootError::Path("/dev/nsm", error))?;
    extend_and_lock(&Module::over(|request| nsm.exchange(request))).map_err(BootError::Register)?;
    Ok(format!("register {}", event::BOOT_REGISTER))
}

fn extend_and_lock(module: &Module<impl Fn(&[u8]) -> io::Result<Vec<u8>>>) -> Result<(), NsmError> {
    module.extend(event::BOOT_REGISTER, &event::encode(event::BOOT, &[]))?;
    module.lock(event::BOOT_REGISTER)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Extends and locks the register of a module that responds so to `ExtendPCR`; returns the requests it received.
    fn extended_and_locked(extended: &[u8]) -> (Result<(), NsmError>, Vec<String>) {
        let seen = RefCell::new(Vec::new());
        let module = Module::over(|request| {
            let name = ["ExtendPCR", "LockPCR"]
                .into_iter()
                .find(|name| request.windows(name.len()).any(|bytes| bytes == name.as_bytes()));
            seen.borrow_mut().push(name.unwrap_or("another").to_owned());
            Ok(if name == Some("ExtendPCR") { extended.to_vec() } else { b"\x67LockPCR".to_vec() })
        });
        let result = extend_and_lock(&module);
        (result, seen.into_inner())
    }

    #[test]
    fn the_register_is_extended_before_it_is_locked() {
        let extended = [b"\xa1\x69ExtendPCR\xa1\x64data\x58\x30".to_vec(), vec![7; 48]].concat();
        let (result, seen) = extended_and_locked(&extended);
        assert!(result.is_ok());
        assert_eq!(seen, ["ExtendPCR", "LockPCR"]);
    }

    #[test]
    fn a_register_that_cannot_be_extended_stops_the_boot() {
        let (result, seen) = extended_and_locked(b"\xa1\x65Error\x6dReadOnlyIndex");
        assert!(matches!(result, Err(NsmError::Refused(_))));
        assert_eq!(seen, ["ExtendPCR"]);
    }
}
