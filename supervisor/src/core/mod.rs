//! The middle of the supervisor: events from everywhere to the launcher, its actions to those who perform them.
//!
//! Its law: one event at a time. The launcher decides, the decision is kept where a successor finds it, then it is
//! performed, then it is shown.

mod answer;
mod boot;
mod equip;
mod line;
mod notes;
mod perform;
mod turn;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use cloister_net::Entrance;
use cloister_wire::control::Register;
use cloister_wire::frame::FrameError;

use crate::hold::HoldError;
use crate::stash::StashError;
use crate::world::{Addresses, Paths};

pub use boot::run;

/// Binds a listening socket.
pub type Bind = Box<dyn FnOnce() -> io::Result<OwnedFd> + Send>;

/// What the supervisor is given at its start.
pub struct Setup {
    /// The socket pair to init.
    pub init: UnixStream,
    /// Where the host reads and asks: port 17000.
    pub control: Entrance,
    /// Where the host reads the log: port 17001.
    pub logs: Entrance,
    /// Gives the listener where the host brings connections from outside, port 17003, if none was made before.
    pub ingress: Bind,
    /// Where programs inside reach it.
    pub addresses: Addresses,
    /// Where things lie.
    pub paths: Paths,
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

/// What ends the supervisor before the enclave's own end. Init starts another.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// Init is gone or does not keep to the contract.
    #[error("the conversation with init failed")]
    Hold(#[from] HoldError),
    /// A message to init cannot be written.
    #[error("a message to init cannot be written")]
    Frame(#[from] FrameError),
    /// Init did not begin with a welcome.
    #[error("init did not begin with a welcome")]
    NoWelcome,
    /// Init speaks another version.
    #[error("init speaks version {0} of the hold channel")]
    Version(u32),
    /// The state or the log cannot be kept.
    #[error("what must survive a crash cannot be kept")]
    Stash(#[from] StashError),
    /// The system refuses something the supervisor cannot be without.
    #[error("{what}")]
    System {
        /// What.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
}
