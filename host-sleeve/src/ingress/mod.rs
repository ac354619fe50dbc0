//! Ingress on the host: clients of published TCP ports are carried to the enclave.
//!
//! Its law: a client that cannot be carried is told so by a reset, never left waiting for an answer that cannot come.
//! Clients beyond the cap wait in the listen queue. What the clients may reach is decided inside, by the manifest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloister_relay::{Gate, Listener, Options, Pass, Peer, Stream, Works, relay};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use cloister_wire::ports;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::transport::{self, Transport};

/// The most clients carried to one enclave at once: as many as its supervisor admits.
const MOST_CLIENTS: usize = 4096;

/// Descriptors kept for everything but clients.
const RESERVED_DESCRIPTORS: usize = 256;

/// How long a client waits for a supervisor that is being started again, which takes less than a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(25);

/// Serves every listener, with the ingress port of the manifest behind it, until the future is dropped. Connections that
/// are being carried then end with it.
pub(crate) async fn run(listeners: Vec<(Listener, u16)>, transport: Arc<dyn Transport>) {
    let gate = Gate::within_descriptors(MOST_CLIENTS, RESERVED_DESCRIPTORS);
    let works = Arc::new(Works::new());
    let mut ports = JoinSet::new();
    for (listener, port) in listeners {
        let door = Door { port, transport: Arc::clone(&transport), works: Arc::clone(&works) };
        ports.spawn(serve(listener, gate.clone(), door));
    }
    // A listener's task does not end; were one to, the others go on.
    while ports.join_next().await.is_some() {}
}

/// What every client of one published port needs.
#[derive(Clone, Debug)]
struct Door {
    port: u16,
    transport: Arc<dyn Transport>,
    works: Arc<Works>,
}

async fn serve(listener: Listener, gate: Gate, door: Door) {
    let mut clients = JoinSet::new();
    loop {
        let pass = gate.enter().await;
        let (client, peer) = gate.next(&listener).await;
        clients.spawn(door.clone().carry(client, peer, pass));
        // The set keeps what has ended until it is asked.
        while clients.try_join_next().is_some() {}
    }
}

impl Door {
    async fn carry(self, client: Stream, peer: Peer, pass: Pass) {
        if self.try_carry(&client, peer).await.is_err() {
            // A client that is gone already needs no reset.
            drop(client.reset_on_close());
        }
        drop(client);
        drop(pass);
    }

    async fn try_carry(&self, client: &Stream, peer: Peer) -> io::Result<()> {
        let framing = if self.transport.half_close() { Framing::Raw } else { Framing::Chunked };
        let header = Header { version: VERSION, port: self.port, client: address(peer), framing };
        let lead_out = frame::encode(&header, HEADER_LIMIT).map_err(io::Error::other)?;
        let enclave = timeout(PATIENCE, self.connect()).await??;
        relay(&enclave, client, &self.works, Options { lead_out, ..Options::new(framing) }).await;
        Ok(())
    }

    /// Connects to the supervisor. One that does not listen may be starting again.
    async fn connect(&self) -> io::Result<Stream> {
        let start = Instant::now();
        loop {
            match self.transport.connect(ports::INGRESS).await {
                Err(error) if transport::may_answer_later(&error) && start.elapsed() < PATIENCE => {
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

fn address(peer: Peer) -> Option<SocketAddr> {
    match peer {
        Peer::Tcp(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Peer::Vsock(_) | Peer::Local => None,
    }
}

#[cfg(test)]
mod tests;
