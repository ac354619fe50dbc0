//! The first frame on every channel: protocol, version and role of the sender.

use serde::{Deserialize, Serialize};

/// The version of every channel in this crate. It changes when an old peer could misread a new one.
pub const VERSION: u32 = 3;

/// The channels that start with a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// [`crate::control`].
    Control,
    /// [`crate::logs`].
    Logs,
    /// [`crate::ingress`]; its hello is part of the connection header.
    Ingress,
    /// [`crate::hold`].
    Hold,
    /// [`crate::module`].
    SecurityModule,
}

/// The sender of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `host-sleeve`.
    Host,
    /// The supervisor, or init when it sends the final status to the host.
    Guest,
    /// A program inside the enclave.
    Local,
    /// PID 1 on the hold channel.
    Init,
    /// The supervisor on the hold channel.
    Supervisor,
}

/// The first frame that each end sends, before it has read anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The channel.
    pub protocol: Protocol,
    /// The protocol version, [`VERSION`].
    pub version: u32,
    /// The sender.
    pub role: Role,
}

/// An incompatible peer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The peer uses another version.
    #[error("the peer speaks version {theirs} of this channel, this side speaks version {VERSION}")]
    Version {
        /// The version that the peer announced.
        theirs: u32,
    },
    /// The peer expected another channel on this port.
    #[error("the peer opened the {theirs:?} channel on the port of the {ours:?} channel")]
    Protocol {
        /// The channel that the peer announced.
        theirs: Protocol,
        /// The channel of this port.
        ours: Protocol,
    },
}

impl Hello {
    /// The hello of `role` for `protocol`, with this crate's version.
    #[must_use]
    pub const fn new(protocol: Protocol, role: Role) -> Self {
        Self { protocol, version: VERSION, role }
    }

    /// Checks that the sender of this hello is compatible on `protocol`.
    pub fn check(self, protocol: Protocol) -> Result<(), HelloError> {
        if self.version != VERSION {
            return Err(HelloError::Version { theirs: self.version });
        }
        if self.protocol != protocol {
            return Err(HelloError::Protocol { theirs: self.protocol, ours: protocol });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_has_these_bytes() {
        let hello = Hello::new(Protocol::Control, Role::Host);
        assert_eq!(
            serde_json::to_string(&hello).unwrap(),
            r#"{"protocol":"control","version":3,"role":"host"}"#
        );
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let hello = Hello { version: 7, ..Hello::new(Protocol::Logs, Role::Host) };
        assert_eq!(
            hello.check(Protocol::Logs).unwrap_err().to_string(),
            "the peer speaks version 7 of this channel, this side speaks version 3"
        );
    }

    #[test]
    fn another_channel_on_this_port_is_refused() {
        assert!(Hello::new(Protocol::Logs, Role::Host).check(Protocol::Control).is_err());
    }
}
