//! Stage `network`: the loopback interface, and on Nitro the parent's heartbeat.
//!
//! Its law: no address but the loopback's. Ways out are the egress service's.

use cloister_sys::platform::Platform;

use super::{Boot, BootError, heartbeat};

/// Switches loopback on, and tells a Nitro enclave's parent that there is life.
pub fn start(boot: &mut Boot) -> Result<String, BootError> {
    cloister_sys::net::loopback_up().map_err(|error| BootError::Kernel("switching loopback on", error))?;
    if boot.platform != Some(Platform::Nitro) {
        return Ok(String::new());
    }
    heartbeat::start();
    Ok("heartbeat".to_owned())
}
