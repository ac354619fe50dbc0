//! Who may request something of the running enclave: of its supervisor, and of its security module.
//!
//! Invariant: what is not listed is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Requests that are accepted in addition to reading state and stopping the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Actions on single services that the host may request: `start`, `stop`, `restart`, `signal`; sorted.
    pub host: Vec<ControlVerb>,
    /// Services that may list, start, stop and signal services, and read their logs; sorted.
    pub services: Vec<String>,
}

/// Who may use the security module, through the attestor, which is started only if there is a port or a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The port number outside the enclave at which anyone may request evidence over HTTPS.
    pub port: Option<u16>,
    /// The operations that each service may request, sorted.
    pub services: BTreeMap<String, Vec<AttestationVerb>>,
}

impl Attestation {
    /// Whether anyone may use it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.port.is_some() || !self.services.is_empty()
    }
}

/// One operation of the attestor that a manifest can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AttestationVerb {
    /// Evidence that contains a nonce, user data and a public key of the service's choice.
    Evidence,
    /// Random bytes of the security module.
    Random,
    /// Events in the event log.
    Extend,
    /// The end of the event log's recording, for all services.
    Lock,
}

/// One action that a manifest can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "source", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ControlVerb {
    /// Start a stopped service.
    Start,
    /// Stop a service.
    Stop,
    /// Restart a service.
    Restart,
    /// Send a signal to a service.
    Signal,
}
