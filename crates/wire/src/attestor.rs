//! The socket pair between the supervisor and the attestor, the program that has the security module.
//!
//! Invariant: the supervisor accepts the connections of programs inside, identifies their service by its cgroup, and
//! sends each connection together with what the manifest allows that service. The attestor reads the bytes, and does
//! nothing for such a client that was not allowed by the supervisor; clients outside, who may request what is public, come from the
//! [terminator](crate::terminator). It is treated as hostile, as the
//! [gateway](crate::gateway) is: packets of at most [`LIMIT`](crate::packet::LIMIT) bytes, each one JSON message.

use serde::{Deserialize, Serialize};

use crate::control::MAX_SERVICES;
use crate::logs::MAX_NAME;
use crate::packet::Bounded;

/// The attestor's name among the servants.
pub const NAME: &str = "@attestor";

/// Path of the program in ramdisk 1.
pub const PROGRAM: &str = "/sbin/attestor";

/// The attestor's descriptor of its end of the socket pair.
pub const CHANNEL_FD: i32 = 3;

/// The attestor's descriptor of the memory of the event log, which init holds.
pub const LOG_FD: i32 = 4;

/// The attestor's descriptor of the memory of the TLS certificate's key, which init holds.
pub const KEY_FD: i32 = 5;

/// The attestor's descriptor of its end of the pair to the terminator ([`crate::terminator::ATTESTOR_FD`]).
pub const TERMINATOR_FD: i32 = 6;

/// The attestor's descriptor of its end of the pair for signatures ([`crate::terminator::SIGNER_FD`]).
pub const SIGNER_FD: i32 = 7;

/// The attestor's descriptor of what provides evidence, of the kind that [`Provider`] says. The program's arguments are the name
/// of the platform, how many services may record events, and the provider's name.
pub const PROVIDER_FD: i32 = 8;

/// What provides evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The device of the Nitro Security Module.
    Nsm,
    /// A development security module at the other end of connections ([`ToAttestor::Module`]): the platform `virtual`. There
    /// is no descriptor.
    Sleeve,
    /// An entry of configfs-tsm: TDX and SEV-SNP.
    Tsm,
}

impl Provider {
    const ALL: [Self; 3] = [Self::Nsm, Self::Sleeve, Self::Tsm];

    /// Its name among the attestor's arguments.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nsm => "nsm",
            Self::Sleeve => "sleeve",
            Self::Tsm => "tsm",
        }
    }

    /// The provider of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }
}

/// Maximum number of connections of one service that are served at once. Their requests take their turns at the security module,
/// or at the hardware that makes reports, one after the other: more of them only wait longer.
pub const MAX_CLIENTS_OF_SERVICE: usize = 8;

/// Maximum number of connections of all services that are served at once, not counting the first one of each service.
/// One takes less than 40 KiB of the attestor's memory: the buffers of a request and a document.
pub const MAX_SHARED_CLIENTS: usize = 32;

/// Maximum number of clients of the attestation server that are served at once. Together they have one turn in rotation with each
/// service, so more of them only wait longer: of TDX quotes, which take a second each, about ten are made within the time limit.
pub const MAX_REMOTE_CLIENTS: usize = 16;

/// Maximum number of connections that are served at once: the shared ones, one for each service, one for all
/// processes that are in no service, and those of the attestation server.
pub const MAX_CLIENTS: usize = MAX_SHARED_CLIENTS + MAX_SERVICES + 1 + MAX_REMOTE_CLIENTS;

/// An operation of the local interface, which the manifest allows per service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Evidence that contains the caller's nonce, user data and public key.
    Evidence,
    /// Random bytes of the security module.
    Random,
    /// Events in the event log.
    Extend,
    /// The end of the event log's recording.
    Lock,
}

/// A message from the supervisor to the attestor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToAttestor {
    /// A connection of a service, with one descriptor.
    Client {
        /// Its name; `None` for a process that is in no service.
        service: Option<String>,
        /// What the manifest allows it.
        allowed: Vec<Operation>,
    },
    /// A request to report that it serves, with the ID that the report repeats: sent after each start of the attestor and of
    /// the supervisor.
    Confirm {
        /// Different for each request.
        id: u64,
    },
    /// A connection that the sleeve opened to the port of the development security module, with one descriptor: the
    /// platform `virtual` only. It replaces the previous one.
    Module,
}

/// A message from the attestor to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAttestor {
    /// It serves.
    Ready {
        /// The ID of the request. A report of a predecessor has another.
        id: u64,
    },
}

impl Bounded for ToAttestor {
    fn excess(&self) -> Option<(usize, usize)> {
        let Self::Client { service, .. } = self else { return None };
        let length = service.as_ref()?.len();
        (length > MAX_NAME).then_some((length, MAX_NAME))
    }
}

impl Bounded for FromAttestor {
    fn excess(&self) -> Option<(usize, usize)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{decode, encode};

    #[test]
    fn messages_have_these_bytes() {
        let client = ToAttestor::Client { service: Some("web".into()), allowed: vec![Operation::Evidence] };
        let bytes = br#"{"client":{"service":"web","allowed":["evidence"]}}"#;
        assert_eq!(encode(&client).unwrap(), bytes);
        assert_eq!(decode::<ToAttestor>(bytes).unwrap(), client);
        let unknown = ToAttestor::Client { service: None, allowed: Vec::new() };
        assert_eq!(encode(&unknown).unwrap(), br#"{"client":{"service":null,"allowed":[]}}"#);
        assert_eq!(encode(&ToAttestor::Module).unwrap(), br#""module""#);
        assert_eq!(encode(&ToAttestor::Confirm { id: 7 }).unwrap(), br#"{"confirm":{"id":7}}"#);
        assert_eq!(encode(&FromAttestor::Ready { id: 7 }).unwrap(), br#"{"ready":{"id":7}}"#);
    }

    #[test]
    fn every_provider_is_found_by_its_name() {
        for provider in Provider::ALL {
            assert_eq!(Provider::named(provider.name()), Some(provider));
        }
        assert_eq!(Provider::named("tpm"), None);
    }

    #[test]
    fn a_name_over_its_limit_is_refused() {
        let client = ToAttestor::Client { service: Some("x".repeat(MAX_NAME + 1)), allowed: Vec::new() };
        assert!(decode::<ToAttestor>(&encode(&client).unwrap()).is_err());
    }
}
