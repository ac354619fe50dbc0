//! The process: one thread for each processor, each with a reactor of its own, all with the same listener.
//!
//! Invariant: with one processor there is one thread. Threads share counters, gates and the table, but never a
//! connection: it stays with the thread that accepted it. The main thread also serves the channel to the supervisor.
//!
//! A connection wakes every waiting thread, and one gets it. `EPOLLEXCLUSIVE` would wake only one, but it has no effect
//! between the reactor's own epoll instance and the listener unless the listener is registered with it, which Tokio
//! does not support. Machines have few processors, a thread that is woken in vain makes one `poll(2)`
//! ([`Listener::inherited`]), and a thread that is busy with connections is not woken at all.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cloister_net::packets::{MessageError, Packets};
use cloister_net::{Listener, connection_capacity, prepare_diagnosis, processors};
use cloister_sys::inherited;
use cloister_wire::gateway::{
    CHANNEL_FD, LISTENER_FD, MAX_CONNECTIONS, RESERVED_DESCRIPTORS, TERMINATOR_FD, WITH_TERMINATOR,
};
use tokio::runtime::{Builder, Runtime};

use crate::channel;
use crate::ingress::Ingress;

/// Why the gateway exits.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A system call failed that the gateway cannot work without.
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

fn system(what: &'static str) -> impl Fn(io::Error) -> GatewayError {
    move |source| GatewayError::System { what, source }
}

/// Runs the gateway with the descriptors that this process has inherited.
///
/// # Errors
/// It returns only on an error.
pub fn run() -> Result<(), GatewayError> {
    let listener = inherited::copy(LISTENER_FD).map_err(system("the inherited listener is not open"))?;
    let channel = inherited::copy(CHANNEL_FD).map_err(system("the inherited channel is not open"))?;
    let terminator = (env::args().nth(1).as_deref() == Some(WITH_TERMINATOR)).then(|| {
        inherited::copy(TERMINATOR_FD).map_err(system("the inherited pair to the terminator is not open"))
    });
    let terminator = terminator.transpose()?;
    let capacity = connection_capacity(MAX_CONNECTIONS, RESERVED_DESCRIPTORS);
    let (ingress, outgoing) = Ingress::new(capacity, terminator);
    let threads = processors();
    for _ in 1..threads {
        let (ingress, listener) = (ingress.clone(), copy(&listener)?);
        let serve = move || serve(&ingress, listener);
        let thread = std::thread::Builder::new().spawn(serve);
        drop(thread.map_err(system("cannot start a thread"))?);
    }
    let serving = ingress.clone();
    runtime()?.block_on(async {
        let channel =
            Packets::new(channel).map_err(system("cannot register the channel with the reactor"))?;
        let listener = watched(listener, threads > 1)?;
        drop(tokio::spawn(async move { serving.serve(listener).await }));
        Ok(channel::converse(Arc::new(channel), &ingress, outgoing).await?)
    })
}

/// Runs one of the other threads. If it fails, the remaining threads accept the connections.
fn serve(ingress: &Ingress, listener: OwnedFd) -> Result<(), GatewayError> {
    runtime()?.block_on(async { match ingress.serve(watched(listener, true)?).await {} })
}

/// Prepares this thread to serve the listener. All of its descriptors but those of connections are open afterwards.
fn watched(listener: OwnedFd, shared: bool) -> Result<Listener, GatewayError> {
    prepare_diagnosis().map_err(system("the kernel's socket diagnosis is unavailable"))?;
    Listener::inherited(listener, shared).map_err(system("cannot register the listener with the reactor"))
}

fn runtime() -> Result<Runtime, GatewayError> {
    Builder::new_current_thread().enable_all().build().map_err(system("cannot create a reactor"))
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, GatewayError> {
    fd.as_fd().try_clone_to_owned().map_err(system("cannot duplicate the listener"))
}
