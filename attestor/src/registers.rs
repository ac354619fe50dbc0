//! The registers of a security module, compared with the event log.
//!
//! Invariant: a module is used only if its registers contain exactly the events of the log. One may be missing, the last: it was
//! written before it was extended, by a predecessor of this process. Any other difference cannot be corrected.

use std::io;

use cloister_binding::eventlog::{BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER};
use cloister_nsm::{Module, NsmError};

use crate::events::Events;

/// Why the registers do not contain the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    /// A request failed: another attempt may succeed.
    #[error("cannot compare the registers of the security module with the event log")]
    Nsm(#[from] NsmError),
    /// A register has another value, for the rest of the machine's life.
    #[error(
        "PCR{0} of the security module has the value {1}, which is not that of the event log: evidence would not be accepted; \
         launch the enclave again"
    )]
    Other(u16, String),
}

/// Extends the last event if it is missing, and locks the registers in which nothing more is recorded.
pub(crate) fn compare<X>(module: &Module<X>, events: &Events) -> Result<(), RegisterError>
where
    X: Fn(&[u8]) -> io::Result<Vec<u8>>,
{
    for register in [BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER] {
        let mut found = module.pcr(register)?;
        let expected = events.digests().nitro_register(register);
        if let Some((event, before)) = events.last()
            && event.register() == register
            && found.value == before
            && !found.locked
        {
            found.value = module.extend(register, &event.extension())?;
        }
        if found.value != expected {
            let digits = |text: String, byte: &u8| text + &format!("{byte:02x}");
            return Err(RegisterError::Other(register, found.value.iter().fold(String::new(), digits)));
        }
        if !found.locked && is_complete(register, events) {
            module.lock(register)?;
        }
    }
    Ok(())
}

/// Whether nothing more is recorded in a register.
fn is_complete(register: u16, events: &Events) -> bool {
    register == BOOT_REGISTER || register == EVENT_REGISTER && events.is_locked()
}
