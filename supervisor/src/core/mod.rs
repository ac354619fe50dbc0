//! The core of the supervisor: passes events from all sources to the launcher, and performs its actions.
//!
//! Invariant: one event at a time. The launcher decides, the decision is stored where a successor finds it, then it is
//! performed, then it is published.

mod answer;
mod boot;
mod equip;
mod handshake;
mod notes;
mod perform;
mod platform;
mod turn;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use cloister_net::Entrance;
use cloister_sys::ptp::Ptp;
use cloister_wire::attestor::Provider;
use cloister_wire::control::Register;
use cloister_wire::frame::FrameError;

use crate::hold::HoldError;
use crate::stash::StashError;
use crate::world::{Addresses, Paths};

pub use boot::run;

/// Binds a listening socket.
pub type Bind = Box<dyn FnOnce() -> io::Result<OwnedFd> + Send>;

/// What the servants are given.
pub struct Given {
    /// Binds the listener for connections from outside, port 17003, if init does not hold it yet.
    pub ingress: Bind,
    /// What provides evidence, and its descriptor, if this machine has hardware for it. An error matters only if the manifest uses
    /// attestation: services run without evidence, too.
    pub provider: io::Result<Option<(Provider, OwnedFd)>>,
    /// Binds the listener for the development security module, port 17004, if init does not hold it yet: on machines
    /// without hardware. It is used if init, too, has detected the platform `virtual`.
    pub sleeve: Option<Bind>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What the supervisor is given at its start.
pub struct Setup {
    /// The socket pair to init.
    pub init: UnixStream,
    /// Where the host reads the status and sends requests: port 17000.
    pub control: Entrance,
    /// Where the host reads the log: port 17001.
    pub logs: Entrance,
    /// What the servants are given.
    pub servants: Given,
    /// The addresses for programs inside.
    pub addresses: Addresses,
    /// The paths of files.
    pub paths: Paths,
    /// The clock that may correct the date, if this machine has one, or why it cannot be used.
    pub clock: io::Result<Option<Ptp>>,
    /// For jitter.
    pub seed: u64,
    /// The measurement registers of this machine.
    pub registers: Vec<Register>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("paths", &self.paths)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Errors that end the supervisor while the enclave runs. Init starts a successor.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// Init is gone or violates the protocol.
    #[error("the channel to init failed")]
    Hold(#[from] HoldError),
    /// A message to init cannot be encoded.
    #[error("cannot encode a message to init")]
    Frame(#[from] FrameError),
    /// Init's first message was not a welcome.
    #[error("init's first message was not a welcome")]
    NoWelcome,
    /// Init uses another version.
    #[error("init uses version {0} of the hold channel, which this supervisor does not support")]
    Version(u32),
    /// The state cannot be stored.
    #[error("cannot store the state that must survive a crash")]
    Stash(#[from] StashError),
    /// A system call failed that the supervisor cannot work without.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
