//! Stage `network`: the loopback interface and the machine's name.
//!
//! Its law: no address but the loopback's. Ways out are the egress service's.

use super::{BootError, Machine};

/// The enclave's host name: the same for all, since a host must not learn from it what runs inside.
const HOSTNAME: &str = "enclave";

/// Switches loopback on and sets the host name.
pub fn start(_: &mut Machine) -> Result<String, BootError> {
    cloister_sys::net::loopback_up().map_err(|error| BootError::Kernel("switching loopback on", error))?;
    rustix::system::sethostname(HOSTNAME.as_bytes())
        .map_err(|error| BootError::Kernel("setting the host name", error.into()))?;
    Ok(String::new())
}
