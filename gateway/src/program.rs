//! The process: one thread for each processor, each with a reactor of its own, all with the same listener.
//!
//! Its law: with one processor there is one thread. Threads share counters, gates and the table, and never a connection: it stays
//! with the thread that accepted it. The main thread holds the conversation with the supervisor besides.
//!
//! A connection wakes every thread that waits, and one gets it. `EPOLLEXCLUSIVE` would wake one, but it has no effect between the
//! reactor's own epoll instance and the listener unless that is registered with it, which Tokio does not offer. Machines have a
//! few processors, a thread that is woken for nothing makes one `poll(2)` ([`Listener::inherited`]), and one that is busy with
//! connections is not woken at all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cloister_net::packets::Packets;
use cloister_net::{Listener, connection_capacity, processors};
use cloister_sys::inherited;
use cloister_wire::gateway::{CHANNEL_FD, LISTENER_FD, MAX_CONNECTIONS, RESERVED_DESCRIPTORS};
use tokio::runtime::{Builder, Runtime};

use crate::channel;
use crate::ingress::Ingress;

/// Why the gateway ends.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The system refuses what it cannot be without.
    #[error("{what}")]
    System {
        /// What it was doing.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The supervisor's end of the channel is gone, or what it sends is no message.
    #[error("the channel to the supervisor failed")]
    Channel(#[from] channel::ChannelError),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> GatewayError {
    move |source| GatewayError::System { what, source }
}

/// Serves with the descriptors that this process has inherited.
///
/// # Errors
/// Whatever ends it: it never ends by itself.
pub fn run() -> Result<(), GatewayError> {
    let listener = inherited::copy(LISTENER_FD).map_err(system("the inherited listener is not open"))?;
    let channel = inherited::copy(CHANNEL_FD).map_err(system("the inherited channel is not open"))?;
    let (ingress, outgoing) = Ingress::new(connection_capacity(MAX_CONNECTIONS, RESERVED_DESCRIPTORS));
    let threads = processors();
    for _ in 1..threads {
        let (ingress, listener) = (ingress.clone(), copy(&listener)?);
        let serve = move || serve(&ingress, listener);
        let thread = std::thread::Builder::new().spawn(serve);
        drop(thread.map_err(system("a thread cannot be started"))?);
    }
    let serving = ingress.clone();
    runtime()?.block_on(async {
        let channel = Packets::new(channel).map_err(system("the reactor does not take the channel"))?;
        let listener = watched(listener, threads > 1)?;
        drop(tokio::spawn(async move { serving.serve(listener).await }));
        Ok(channel::converse(Arc::new(channel), &ingress, outgoing).await?)
    })
}

/// One of the other threads. One that cannot go on leaves the connections to those that can.
fn serve(ingress: &Ingress, listener: OwnedFd) -> Result<(), GatewayError> {
    runtime()?.block_on(async { match ingress.serve(watched(listener, true)?).await {} })
}

fn watched(listener: OwnedFd, shared: bool) -> Result<Listener, GatewayError> {
    Listener::inherited(listener, shared).map_err(system("the reactor does not take the listener"))
}

fn runtime() -> Result<Runtime, GatewayError> {
    Builder::new_current_thread().enable_all().build().map_err(system("there is no reactor"))
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, GatewayError> {
    fd.as_fd().try_clone_to_owned().map_err(system("the listener cannot be shared"))
}
