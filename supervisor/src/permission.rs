//! Which peers inside the enclave may send requests about other services.
//!
//! Invariant: the measured manifest lists the services by name; the kernel identifies the peer
//! ([`cloister_net::identity`]).

use cloister_net::Identity;

/// Whether `peer` may read about and control other services: the host, and the `services` that the manifest lists.
///
/// # Errors
/// The reason for a refusal, human-readable.
pub fn may_control(peer: &Identity, services: &[String]) -> Result<(), String> {
    match peer {
        Identity::Host => Ok(()),
        Identity::Service(name) if services.contains(name) => Ok(()),
        Identity::Service(name) => Err(format!(
            "service {name:?} is not allowed to control services: the manifest's control.services does not list it"
        )),
        Identity::Unknown => {
            Err("a process that does not belong to a service is not allowed to send requests".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_and_the_listed_services_are_allowed() {
        let named = ["admin".to_owned()];
        let service = |name: &str| Identity::Service(name.to_owned());
        assert_eq!(may_control(&Identity::Host, &[]), Ok(()));
        assert_eq!(may_control(&service("admin"), &named), Ok(()));
        for stranger in [service("web"), Identity::Unknown] {
            assert!(may_control(&stranger, &named).is_err());
        }
    }
}
