//! The process: one thread for everything.
//!
//! Invariant: it serves as long as its channels are open. A client that fails concerns only itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_net::packets::{MessageError, Packets};
use cloister_net::{Gate, Stream};
use cloister_sys::inherited;
use cloister_wire::attestor::MAX_REMOTE_CLIENTS;
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{
    ATTESTOR_FD, CHANNEL_FD, CLIENTS_FD, FromTerminator, HandOver, MAX_CONNECTIONS, SIGNER_FD, ToTerminator,
};
use tokio::runtime::Builder;

use crate::certificate::Certificates;
use crate::connection;
use crate::signer::Signer;

/// Why the terminator exits.
#[derive(Debug, thiserror::Error)]
pub enum TerminatorError {
    /// A system call failed that the terminator cannot work without.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A channel is closed, or an invalid message was received.
    #[error("the channel to the {0} failed")]
    Channel(&'static str, #[source] MessageError),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> TerminatorError {
    move |source| TerminatorError::System { what, source }
}

/// Runs the terminator with the descriptors that this process has inherited.
///
/// # Errors
/// It returns only on an error.
pub fn run() -> Result<(), TerminatorError> {
    let inherit = |number| inherited::copy(number).map_err(system("an inherited channel is not open"));
    let random = system("there are no random bytes for the first ID of a request");
    let signer = Signer::new(inherit(SIGNER_FD)?).map_err(&random)?;
    let (channel, clients, attestor) = (inherit(CHANNEL_FD)?, inherit(CLIENTS_FD)?, inherit(ATTESTOR_FD)?);
    let reactor = Builder::new_current_thread().enable_all().build();
    reactor.map_err(system("cannot create a reactor"))?.block_on(async {
        let (channel, clients, attestor) = (register(channel)?, register(clients)?, register(attestor)?);
        let attestor = Arc::new(attestor);
        let certificates = Certificates::new(Arc::clone(&attestor), signer).map_err(random)?;
        tokio::select! {
            ended = confirm(channel) => ended,
            ended = certificates.receive() => ended.map_err(|error| TerminatorError::Channel("attestor", error)),
            ended = admit(clients, &certificates, &attestor) => ended,
        }
    })
}

fn register(pair: OwnedFd) -> Result<Packets, TerminatorError> {
    Packets::new(pair).map_err(system("cannot register a channel with the reactor"))
}

/// Reports to the supervisor, when it asks, that this program serves.
async fn confirm(channel: Packets) -> Result<(), TerminatorError> {
    let failed = |error| TerminatorError::Channel("supervisor", error);
    let mut buffer = vec![0; LIMIT];
    loop {
        let (ToTerminator::Confirm { id }, _) = channel.next(&mut buffer).await.map_err(failed)?;
        channel.report(&FromTerminator::Ready { id }).await.map_err(failed)?;
    }
}

/// Serves the clients that the gateway hands over.
async fn admit(
    clients: Packets,
    certificates: &Arc<Certificates>,
    attestor: &Arc<Packets>,
) -> Result<(), TerminatorError> {
    let (gate, serving) = (Gate::new(MAX_CONNECTIONS), Gate::new(MAX_REMOTE_CLIENTS));
    let mut buffer = vec![0; LIMIT];
    loop {
        // Further clients wait in the gateway's socket.
        let pass = gate.enter().await;
        let received = clients.next(&mut buffer).await;
        let (HandOver::Client, mut fds) =
            received.map_err(|error| TerminatorError::Channel("gateway", error))?;
        let Some(Ok(stream)) = fds.pop().map(Stream::local) else { continue };
        let (certificates, attestor) = (Arc::clone(certificates), Arc::clone(attestor));
        let serving = serving.clone();
        drop(tokio::spawn(async move {
            // A client that fails has received an alert of TLS, was too slow, or has disconnected.
            drop(connection::serve(stream, &certificates, &serving, &attestor).await);
            drop(pass);
        }));
    }
}
