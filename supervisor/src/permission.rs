//! Who inside the enclave may ask for what concerns other services.
//!
//! Its law: the measured manifest says it, by the names of services; who a peer is, the kernel says
//! ([`cloister_net::identity`]).

use cloister_net::Identity;

/// Whether `peer` may read and ask about other services: the host, and the `services` that the manifest names.
///
/// # Errors
/// Why not, for people.
pub fn may_control(peer: &Identity, services: &[String]) -> Result<(), String> {
    match peer {
        Identity::Host => Ok(()),
        Identity::Service(name) if services.contains(name) => Ok(()),
        Identity::Service(name) => Err(format!(
            "service {name:?} may not control services: control.services of the manifest does not name it"
        )),
        Identity::Unknown => Err("a process that belongs to no service may not ask".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_the_services_that_are_named_may_ask_and_nobody_else() {
        let named = ["admin".to_owned()];
        let service = |name: &str| Identity::Service(name.to_owned());
        assert_eq!(may_control(&Identity::Host, &[]), Ok(()));
        assert_eq!(may_control(&service("admin"), &named), Ok(()));
        for stranger in [service("web"), Identity::Unknown] {
            assert!(may_control(&stranger, &named).is_err());
        }
    }
}
