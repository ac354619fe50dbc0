//! The process: one thread for connections, and one for what provides evidence.
//!
//! Invariant: a provider that does not answer delays only requests for it. Everything else is served by the first
//! thread, which never blocks.

use std::env;
use std::io;
use std::sync::Arc;

use cloister_net::packets::{MessageError, Packets};
use cloister_sys::inherited;
use cloister_sys::nsm::Nsm;
use cloister_sys::tsm::Folder;
use cloister_wire::attestor::{self, CHANNEL_FD, KEY_FD, LOG_FD, PROVIDER_FD, SIGNER_FD, TERMINATOR_FD};
use tokio::runtime::Builder;

use crate::channel;
use crate::events::{DamagedLog, Events};
use crate::keeper::{Client, Keeper};
use crate::key::{KeyError, TlsKey};
use crate::module::Module;
use crate::provider::Provider;
use crate::remote::Remote;
use crate::reports::{Hardware, Reports};
use crate::terminator;
use crate::tls::Tls;

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
    /// The event log cannot be continued.
    #[error("the event log cannot be continued")]
    Log(#[from] DamagedLog),
    /// The supervisor's end of the channel is closed, or it sent an invalid message.
    #[error("the channel to the supervisor failed")]
    Channel(#[source] MessageError),
    /// The terminator sent an invalid message.
    #[error("a channel to the terminator failed")]
    Terminator(#[source] MessageError),
    /// An argument names a provider that this program does not know.
    #[error("unknown provider of evidence {0:?}")]
    Provider(String),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> AttestorError {
    move |source| AttestorError::System { what, source }
}

/// Runs the attestor with the descriptors that this process has inherited.
///
/// # Errors
/// It returns only on an error.
pub fn run() -> Result<(), AttestorError> {
    let descriptor = |number, what| inherited::copy(number).map_err(system(what));
    let channel = descriptor(CHANNEL_FD, "the inherited channel is not open")?;
    let questions = descriptor(TERMINATOR_FD, "the inherited pair to the terminator is not open")?;
    let signer = descriptor(SIGNER_FD, "the inherited pair for signatures is not open")?;
    let key = TlsKey::open(descriptor(KEY_FD, "the inherited memory of the key is not open")?)?;
    let module = module()?;
    let reactor = Builder::new_current_thread().enable_all().build();
    reactor.map_err(system("cannot create a reactor"))?.block_on(async {
        let register =
            |pair| Packets::new(pair).map_err(system("cannot register a channel with the reactor"));
        let (channel, questions, signer) = (register(channel)?, register(questions)?, register(signer)?);
        let tls = Tls::new(key, module.clone());
        let remote = Remote::new(Arc::clone(&tls));
        let ended = tokio::select! {
            ended = channel::converse(channel, module) => ended.map_err(AttestorError::Channel),
            ended = terminator::converse(questions, Arc::clone(&tls), remote) => ended.map_err(AttestorError::Terminator),
            ended = terminator::sign(signer, tls) => ended.map_err(AttestorError::Terminator),
        };
        ended
    })
}

/// Access to this platform's provider, with the inherited event log.
fn module() -> Result<Module, AttestorError> {
    let mut arguments = env::args().skip(1);
    let platform = arguments.next().unwrap_or_default();
    let recording = arguments.next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let name = arguments.next().unwrap_or_default();
    let memory = inherited::copy(LOG_FD).map_err(system("the inherited event log is not open"))?;
    let events = Events::open(memory, recording)?;
    let device =
        || inherited::copy(PROVIDER_FD).map_err(system("the inherited provider of evidence is not open"));
    let provider = match attestor::Provider::named(&name).ok_or(AttestorError::Provider(name))? {
        attestor::Provider::Sleeve => Provider::Module(Box::new(Keeper::new(&platform, None, events))),
        attestor::Provider::Nsm => {
            let device = Nsm::from(device()?);
            let client: Client =
                cloister_nsm::Module::over(Box::new(move |request| device.exchange(request)));
            Provider::Module(Box::new(Keeper::new(&platform, Some(client), events)))
        }
        attestor::Provider::Tsm => {
            let entry = Folder::from(device()?);
            // This process handles no signals, which would interrupt the driver.
            let hardware: Hardware = Box::new(move |data, wanted| entry.report(data, wanted));
            Provider::Tsm(Reports::new(&platform, hardware, events))
        }
    };
    Module::start(&platform, provider).map_err(system("cannot start a thread for the provider of evidence"))
}
