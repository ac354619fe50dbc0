//! The published ports of an enclave: checked against its manifest, and listened on.
//!
//! Invariant: what cannot be published is refused before anything starts.

use std::collections::HashSet;
use std::net::SocketAddr;

use cloister_net::Listener;
use cloister_wire::terminator;

use crate::app::App;
use crate::error::{Error, Result};
use crate::ingress::Port;
use crate::values::Publish;

/// Maximum connections of one client to the attestation server at once: a quarter of those that the server has places for, and twice
/// as many as it answers at once.
const MOST_FOR_ATTESTATION: usize = terminator::MAX_CONNECTIONS / 4;

/// The ports of an image: those of its services, and that of the attestation server.
pub(super) fn ports(app: &App) -> Vec<u16> {
    let ingress = app.manifest.ingress.iter().map(|ingress| ingress.port);
    ingress.chain(app.manifest.attestation.port).collect()
}

/// Refuses a port that the image does not have, and an address that is published more than once.
pub(super) fn check_ports(publish: &[Publish], app: &App) -> Result<()> {
    check_repeated(publish)?;
    let known = ports(app);
    match publish.iter().find(|port| !known.contains(&port.ingress)) {
        None => Ok(()),
        Some(port) => {
            let list: Vec<String> = known.iter().map(ToString::to_string).collect();
            let hint = match list.as_slice() {
                [] => "the image's manifest has no ingress".to_owned(),
                ports => format!("its ingress ports: {}", ports.join(", ")),
            };
            Err(Error::operator(format!("the image has no ingress port {}", port.ingress)).hint(hint))
        }
    }
}

/// Refuses an address that is published more than once. Port 0, any free one, may be repeated.
fn check_repeated(publish: &[Publish]) -> Result<()> {
    let mut seen = HashSet::new();
    match publish.iter().find(|port| port.listen.port() != 0 && !seen.insert(port.listen)) {
        None => Ok(()),
        Some(port) => Err(Error::operator(format!("--publish {} is given more than once", port.listen))
            .hint("choose another port for one of them, or 0 for any free one")),
    }
}

/// Listens on every published port. Returns the actual ports, which differ where any free one was requested.
pub(super) fn listen(publish: &[Publish], app: &App) -> Result<(Vec<Port>, Vec<Publish>)> {
    let attestation = app.manifest.attestation.port;
    let (mut listeners, mut real) = (Vec::new(), Vec::new());
    for port in publish {
        let listener = Listener::tcp(port.listen).map_err(|error| cannot_listen(port.listen, error))?;
        let listen = listener.tcp_address().unwrap_or(port.listen);
        real.push(Publish { listen, ingress: port.ingress });
        let most_per_client = (attestation == Some(port.ingress)).then_some(MOST_FOR_ATTESTATION);
        listeners.push(Port { listener, ingress: port.ingress, most_per_client });
    }
    Ok((listeners, real))
}

/// An address that cannot be listened on.
pub(super) fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Error {
    let taken = error.kind() == std::io::ErrorKind::AddrInUse;
    let hint = if taken { "choose another port, or 0 for any free one" } else { "choose another address" };
    Error::operator(format!("cannot listen on {address}")).because(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_published_twice_is_named() {
        let port = |listen: &str, ingress| Publish { listen: listen.parse().unwrap(), ingress };
        let twice = [port("127.0.0.1:18080", 80), port("127.0.0.1:18080", 81)];
        assert!(check_repeated(&twice).unwrap_err().to_string().contains("127.0.0.1:18080"));
        let free = [port("127.0.0.1:0", 80), port("127.0.0.1:0", 81), port("127.0.0.2:18080", 80)];
        check_repeated(&free).unwrap();
    }
}
