//! Ingress on the host: clients of published TCP ports are carried to the enclave.
//!
//! Its law: a client that cannot be carried is reset, never left waiting for an answer that cannot come. Clients beyond the
//! cap wait in the listen queue, and those of one port never take the room that is kept for the others. What the clients may
//! reach is decided inside, by the manifest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::{Gate, Listener, Pass, Peer, Stream, room};
use cloister_relay::{Options, Works, relay};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use cloister_wire::ports;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::output;
use crate::transport::{self, Transport};

/// The most clients carried to one enclave at once: as many as its supervisor admits.
const MOST_CLIENTS: usize = 4096;

/// Descriptors kept for everything but clients.
const RESERVED_DESCRIPTORS: usize = 256;

/// Descriptors for [`MOST_CLIENTS`], four each as [`room()`] counts them, and for everything else.
const WANTED_DESCRIPTORS: usize = MOST_CLIENTS * 4 + RESERVED_DESCRIPTORS;

/// How long a client waits for a supervisor that is being started again, which takes less than a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(25);

/// Prepares for clients, before any program is started for them: each client takes descriptors of the sleeve and of the vsock
/// device, which inherits the sleeve's limit. Returns how many clients there may be at once, and says where that is less than
/// the enclave could serve.
pub(crate) fn make_room() -> usize {
    let room = room(MOST_CLIENTS, RESERVED_DESCRIPTORS);
    if let Some(warning) = too_little(room) {
        output::note(&warning);
    }
    room
}

fn too_little(room: usize) -> Option<String> {
    (room < MOST_CLIENTS).then(|| {
        format!(
            "warning: the limit of open files allows {room} clients at once, not {MOST_CLIENTS}; more wait to be accepted\n\
             hint: raise the hard limit to {WANTED_DESCRIPTORS} (`ulimit -Hn`, `LimitNOFILE=` of a systemd unit)"
        )
    })
}

/// Serves every listener, with the ingress port of the manifest behind it, until the future is dropped. Connections that
/// are being carried then end with it. `room` is how many there may be at once.
pub(crate) async fn run(listeners: Vec<(Listener, u16)>, room: usize, transport: Arc<dyn Transport>) {
    let gates = Gate::divide(room, listeners.len());
    let works = Arc::new(Works::new());
    let mut ports = JoinSet::new();
    for ((listener, port), gate) in listeners.into_iter().zip(gates) {
        let door = Door { port, transport: Arc::clone(&transport), works: Arc::clone(&works) };
        ports.spawn(serve(listener, gate, door));
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
        // From the start: also a client that waits for a connection when the sleeve is killed sees a reset. One that is gone
        // already needs none.
        drop(client.reset_on_close());
        // A client that was not carried is reset, and that is all there is to say to it.
        drop(self.try_carry(&client, peer).await);
        drop(client);
        drop(pass);
    }

    async fn try_carry(&self, client: &Stream, peer: Peer) -> io::Result<()> {
        let framing = Framing::Chunked;
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
