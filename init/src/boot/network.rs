//! Stage `network`: the loopback interface, and on Nitro the parent's heartbeat.
//!
//! Invariant: the loopback interface is the only one that gets an address. The heartbeat is the only connection to the
//! outside that is opened from inside.

use cloister_sys::platform::Platform;

use super::{Boot, BootError, heartbeat};

/// Enables loopback, and sends a Nitro enclave's parent its heartbeat.
pub fn start(boot: &mut Boot) -> Result<String, BootError> {
    cloister_sys::net::loopback_up().map_err(|error| BootError::Kernel("cannot enable loopback", error))?;
    if boot.platform != Some(Platform::Nitro) {
        return Ok(String::new());
    }
    heartbeat::start();
    Ok("heartbeat".to_owned())
}
