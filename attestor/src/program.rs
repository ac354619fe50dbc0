//! The process: one thread for connections, and one for the security module.
//!
//! Invariant: a module that does not answer delays only requests for the module. Everything else is served by the first
//! thread, which never blocks.

use std::env;
use std::io;

use cloister_net::packets::{MessageError, Packets};
use cloister_sys::inherited;
use cloister_sys::nsm::Nsm;
use cloister_wire::attestor::{CHANNEL_FD, MODULE_FD};
use tokio::runtime::Builder;

use crate::channel;
use crate::module::Module;
use crate::sleeve::{self, Sleeve};

/// Why the attestor exits.
#[derive(Debug, thiserror::Error)]
pub enum AttestorError {
    /// A system call failed that the attestor cannot work without.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The supervisor's end of the channel is closed, or it sent an invalid message.
    #[error("the channel to the supervisor failed")]
    Channel(#[from] MessageError),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> AttestorError {
    move |source| AttestorError::System { what, source }
}

/// Runs the attestor with the descriptors that this process has inherited.
///
/// # Errors
/// It returns only on an error.
pub fn run() -> Result<(), AttestorError> {
    let channel = inherited::copy(CHANNEL_FD).map_err(system("the inherited channel is not open"))?;
    let module = module(&env::args().nth(1).unwrap_or_default())?;
    let reactor = Builder::new_current_thread().enable_all().build();
    reactor.map_err(system("cannot create a reactor"))?.block_on(async {
        let channel =
            Packets::new(channel).map_err(system("cannot register the channel with the reactor"))?;
        Ok(channel::converse(channel, module).await?)
    })
}

/// The module of this platform: the sleeve's, or the inherited device.
fn module(platform: &str) -> Result<Module, AttestorError> {
    let started = if platform == sleeve::PLATFORM {
        Module::over(Sleeve::default())
    } else {
        let device =
            inherited::copy(MODULE_FD).map_err(system("the inherited security module is not open"))?;
        let device = Nsm::from(device);
        Module::start(platform, move |request| device.exchange(request))
    };
    started.map_err(system("cannot start a thread for the security module"))
}
