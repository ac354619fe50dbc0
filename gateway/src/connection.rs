//! One connection: reads its header, connects to the service, and forwards data.
//!
//! Invariant: the gateway connects to a service only once the header is complete, names a port of the manifest, and
//! that port is below its connection limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister_net::{Permit, Stream, packets};
use cloister_relay::{Options, relay};
use cloister_wire::frame::{Decoder, HEADER};
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{HEADER_LIMIT, Header};
use cloister_wire::terminator::HandOver;
use tokio::time::timeout;

use crate::proxy;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::table::{LeadsTo, ServicePort, Table};

/// How long the host may take to send the header: it does so immediately, and under emulation that takes milliseconds.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long a service may take to accept. Its listen queue is on this machine: a full one drops the request, and the
/// kernel retries after one second and after three.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long a connection to the attestation server may be without a byte. The terminator ends all of them sooner; a client that does
/// not close its end after that must not hold a place.
const ATTESTATION_TIME: Duration = Duration::from_mins(1);

/// Bytes read at first: the header, and a request of typical size that follows it.
const FIRST_READ: usize = HEADER + HEADER_LIMIT + 3 * 1024;

/// Forwards one connection until it ends, which is never an error: errors between two peers concern only them.
///
/// `unread` is its slot among the connections whose header has not been read.
pub(crate) async fn forward(
    stream: Stream,
    shared: &Shared,
    table: &Table,
    unread: Permit,
) -> Result<(), Refusal> {
    let (header, early) =
        timeout(HEADER_TIME, read_header(&stream)).await.map_err(|_| Refusal::NoHeader)??;
    let port = table.get(header.port).ok_or(Refusal::Port(header.port))?;
    let pass = port.gate.try_enter().ok_or(Refusal::Full(header.port))?;
    drop(unread);
    let (service, lead_in) = match &port.leads_to {
        LeadsTo::Service(service) => {
            let proxied = service.proxy_protocol.then(|| proxy::header(header.client, header.port));
            (connect(header.port, service, table, shared).await?, proxied.unwrap_or_default())
        }
        LeadsTo::Attestation => (hand_over(header.port, shared)?, Vec::new()),
    };
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    shared.changed.notify_one();
    let mut options = Options { closes_last: true, lead_in, early, ..Options::new(header.framing) };
    if let LeadsTo::Attestation = port.leads_to {
        (options.idle, options.first_byte) = (ATTESTATION_TIME, ATTESTATION_TIME);
    }
    relay(&stream, &service, &shared.works, options).await;
    drop((stream, service));
    // The slot is released only after the descriptors are closed.
    drop(pass);
    Ok(())
}

/// Reads the header, and the data that came with it.
async fn read_header(stream: &Stream) -> Result<(Header, Vec<u8>), Refusal> {
    let mut decoder = Decoder::new(HEADER_LIMIT);
    loop {
        let bytes = stream.recv_some(FIRST_READ).await.map_err(Refusal::ClosedEarly)?;
        if bytes.is_empty() {
            return Err(Refusal::ClosedEarly(io::ErrorKind::UnexpectedEof.into()));
        }
        decoder.push(&bytes);
        if let Some(header) = decoder.next_message::<Header>()? {
            return if header.version == VERSION {
                Ok((header, decoder.into_remainder()))
            } else {
                Err(Refusal::Version(header.version))
            };
        }
    }
}

/// Gives the terminator one end of a new connection, and returns the other.
fn hand_over(port: u16, shared: &Shared) -> Result<Stream, Refusal> {
    let passed = || {
        let terminator = shared.terminator.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (ours, theirs) = Stream::pair()?;
        packets::pass(terminator, &HandOver::Client, theirs.as_fd()).map_err(io::Error::other)?;
        Ok(ours)
    };
    passed().map_err(|error: io::Error| Refusal::Terminator { port, error })
}

/// Connects to the service.
async fn connect(number: u16, port: &ServicePort, table: &Table, shared: &Shared) -> Result<Stream, Refusal> {
    let connected = match timeout(CONNECT_TIME, port.connect(table, &shared.loans)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    connected.map_err(|error| Refusal::Service { port: number, target: port.target(), error })
}
