//! Connections to an enclave's ingress ports, through its sleeve: also to ports that are not published.
//!
//! Invariant: only the enclave's own user can open one, because no other user can access the sleeve's socket. What is reachable is
//! decided inside the enclave, by the manifest.

use std::io;

use cloister_wire::control::Reply;

use super::socket::{Client, SleeveRequest, Tunnel};
use crate::error::{Error, ErrorContext as _, Result};
use crate::state::EnclaveDir;

/// Connects to an ingress port of the enclave. There is no time limit for what follows.
pub(crate) fn open(directory: &EnclaveDir, port: u16) -> Result<Tunnel> {
    let name = directory.name();
    let Some(mut client) = Client::connect(directory)? else {
        return Err(Error::operator(format!("{name} is not running")).hint("`host-sleeve ps` lists enclaves"));
    };
    let failed = || Error::enclave(format!("cannot connect to port {port} of {name}"));
    match client.request(SleeveRequest::Connect { port })? {
        Reply::Done => {}
        Reply::Refused { why } => return Err(failed().because(io::Error::other(why))),
        _ => return Err(failed().because(io::Error::other("the sleeve sent an unexpected reply"))),
    }
    let tunnel = client.into_tunnel();
    tunnel.stream.set_read_timeout(None).context(|| "cannot remove a time limit".to_owned())?;
    Ok(tunnel)
}
