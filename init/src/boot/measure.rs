//! Stage `measure`: that the boot came to its end, in a register that evidence carries.
//!
//! Its law: what is extended is locked before anything of the application runs. Registers of the launch are the
//! hypervisor's; those above [`event::BOOT_REGISTER`] are left to the supervisor.

use std::path::Path;

use cloister_sys::nsm::{Nsm, NsmError};
use cloister_sys::platform::Platform;
use cloister_wire::event;

use super::{BootError, Machine};

/// Extends and locks the register, where the platform has one.
pub fn extend(machine: &mut Machine) -> Result<String, BootError> {
    if machine.platform != Some(Platform::Nitro) {
        return Ok(String::new());
    }
    let nsm = Nsm::open(Path::new("/")).map_err(|error| BootError::Path("/dev/nsm", error))?;
    close(&nsm).map_err(BootError::Register)?;
    Ok(format!("register {}", event::BOOT_REGISTER))
}

fn close(nsm: &Nsm) -> Result<(), NsmError> {
    nsm.extend(event::BOOT_REGISTER, &event::encode(event::BOOT, &[]))?;
    nsm.lock(event::BOOT_REGISTER)
}
