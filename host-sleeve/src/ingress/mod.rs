//! Ingress on the host: connections to published TCP ports are forwarded to the enclave.
//!
//! Invariant: a client that cannot be forwarded is reset, never left waiting for a reply that cannot come. Clients beyond the
//! limit wait in the listen queue, and those of one port never use the capacity reserved for the others. At a port with a limit for each
//! client, one that has reached it is reset. What the clients may reach is decided inside the enclave, by the manifest.

mod clients;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::{Gate, Listener, Peer, Permit, Stream, connection_capacity};
use cloister_relay::{Options, Works, relay};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use cloister_wire::ports;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::output;
use crate::transport::{self, Transport};
use clients::Clients;

/// Maximum number of concurrent clients of one enclave: as many as its gateway admits.
const MAX_CLIENTS: usize = 4096;

/// Descriptors reserved for everything but clients.
const RESERVED_DESCRIPTORS: usize = 256;

/// Descriptors for [`MAX_CLIENTS`], four each as [`connection_capacity()`] counts them, and for everything else.
const WANTED_DESCRIPTORS: usize = MAX_CLIENTS * 4 + RESERVED_DESCRIPTORS;

/// How long a client waits while nothing listens in the enclave: the first supervisor may not have bound the port yet. Later,
/// init holds the listener, and connections wait in its queue.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The pause between two attempts to connect to it.
const PAUSE: Duration = Duration::from_millis(25);

/// Raises the open files limit for clients, before any program is started: each client takes descriptors of the sleeve and of
/// the vsock device, which inherits the sleeve's limit. Returns the maximum number of concurrent clients, and prints a warning
/// if that is less than the enclave could serve.
pub(crate) fn prepare_for_clients() -> usize {
    let capacity = connection_capacity(MAX_CLIENTS, RESERVED_DESCRIPTORS);
    if let Some(warning) = limit_warning(capacity) {
        output::note(&warning);
    }
    capacity
}

fn limit_warning(capacity: usize) -> Option<String> {
    (capacity < MAX_CLIENTS).then(|| {
        format!(
            "warning: the open files limit allows {capacity} concurrent clients, not {MAX_CLIENTS}; further clients wait to be accepted\n\
             hint: raise the hard limit to {WANTED_DESCRIPTORS} (`ulimit -Hn`, `LimitNOFILE=` of a systemd unit)"
        )
    })
}

/// A published port.
#[derive(Debug)]
pub(crate) struct Port {
    /// Where its clients connect.
    pub(crate) listener: Listener,
    /// The port of the manifest that they reach.
    pub(crate) ingress: u16,
    /// Maximum number of connections of one client at once; `None` for any.
    pub(crate) most_per_client: Option<usize>,
}

/// Serves every port until the future is dropped. Open connections are closed then. `capacity` is the maximum number of concurrent
/// clients.
pub(crate) async fn run(published: Vec<Port>, capacity: usize, transport: Arc<dyn Transport>) {
    let gates = Gate::divide(capacity, published.len());
    let works = Arc::new(Works::new());
    let mut ports = JoinSet::new();
    for (Port { listener, ingress, most_per_client }, gate) in published.into_iter().zip(gates) {
        let clients = Clients::new(most_per_client);
        let (transport, works) = (Arc::clone(&transport), Arc::clone(&works));
        ports.spawn(serve(listener, gate, Published { port: ingress, clients, transport, works }));
    }
    // A listener's task does not end; if one did, the others would continue.
    while ports.join_next().await.is_some() {}
}

/// One published port.
#[derive(Clone, Debug)]
struct Published {
    port: u16,
    clients: Clients,
    transport: Arc<dyn Transport>,
    works: Arc<Works>,
}

async fn serve(listener: Listener, gate: Gate, published: Published) {
    let mut clients = JoinSet::new();
    loop {
        let permit = gate.enter().await;
        let (client, peer) = gate.next(&listener).await;
        clients.spawn(published.clone().forward(client, peer, permit));
        // The set retains finished tasks until they are joined.
        while clients.try_join_next().is_some() {}
    }
}

impl Published {
    async fn forward(self, client: Stream, peer: Peer, permit: Permit) {
        // Set from the start, so that a client that is still waiting when the sleeve is killed sees a reset. An error means
        // that the client is already gone.
        drop(client.reset_on_close());
        // If forwarding fails, the client is reset: TCP has no way to report a reason.
        if let Some(place) = self.clients.enter(peer) {
            drop(self.try_forward(&client, peer).await);
            drop(place);
        }
        drop(client);
        drop(permit);
    }

    async fn try_forward(&self, client: &Stream, peer: Peer) -> io::Result<()> {
        let enclave = connect(&*self.transport).await?;
        carry(&enclave, self.port, client, address(peer), &self.works).await
    }
}

/// Forwards a client to a port of the manifest over a connection to the enclave's ingress, until both directions have ended.
pub(crate) async fn carry(
    enclave: &Stream,
    port: u16,
    client: &Stream,
    address: Option<SocketAddr>,
    works: &Works,
) -> io::Result<()> {
    let framing = Framing::Chunked;
    let header = Header { version: VERSION, port, client: address, framing };
    let lead_out = frame::encode(&header, HEADER_LIMIT).map_err(io::Error::other)?;
    relay(enclave, client, works, Options { lead_out, ..Options::new(framing) }).await;
    Ok(())
}

/// Connects to the enclave's ingress. If nothing listens there, it may not be bound yet.
pub(crate) async fn connect(transport: &dyn Transport) -> io::Result<Stream> {
    let start = Instant::now();
    let connecting = async {
        loop {
            match transport.connect(ports::INGRESS).await {
                Err(error) if transport::may_succeed_later(&error) && start.elapsed() < CONNECT_LIMIT => {
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    };
    timeout(CONNECT_LIMIT, connecting).await?
}

fn address(peer: Peer) -> Option<SocketAddr> {
    match peer {
        Peer::Tcp(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Peer::Vsock(_) | Peer::Local => None,
    }
}

#[cfg(test)]
mod tests;
