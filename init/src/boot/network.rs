//! Stage `network`: the loopback interface, the machine's name, and on Nitro the parent's heartbeat.
//!
//! Its law: no address but the loopback's. Ways out are the egress service's.

use cloister_sys::platform::Platform;

use super::{BootError, Machine, heartbeat};

/// The enclave's host name: the same for all, since a host must not learn from it what runs inside.
const HOSTNAME: &str = "enclave";

/// Switches loopback on, sets the host name, and tells a Nitro enclave's parent that there is life.
pub fn start(machine: &mut Machine) -> Result<String, BootError> {
    cloister_sys::net::loopback_up().map_err(|error| BootError::Kernel("switching loopback on", error))?;
    rustix::system::sethostname(HOSTNAME.as_bytes())
        .map_err(|error| BootError::Kernel("setting the host name", error.into()))?;
    if machine.platform != Some(Platform::Nitro) {
        return Ok(String::new());
    }
    heartbeat::start();
    Ok("heartbeat".to_owned())
}
