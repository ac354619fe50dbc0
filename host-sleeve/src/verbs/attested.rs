//! Evidence of an enclave of this host, through its sleeve: the attestation port need not be published.
//!
//! Invariant: one request has one time limit, whatever the enclave does.

use std::time::{Duration, Instant};

use cloister_client::{Answer, Deadline};

use crate::client::{Tunnel, tunnel};
use crate::error::{Error, Result};
use crate::state::EnclaveDir;

/// Time limit for a request: an enclave may take ten seconds for its certificate, and as long again for the evidence.
const LIMIT: Duration = Duration::from_secs(30);

/// The name of the server in the request. The enclave does not compare it with anything (RFC 2606, section 2).
const HOST: &str = "enclave.invalid";

/// Requests evidence of this moment.
pub(super) fn evidence(directory: &EnclaveDir) -> Result<Answer> {
    let name = directory.name();
    let Some(port) = directory.must_see()?.record.attestation_port else {
        return Err(Error::author(format!(
            "{name} cannot be verified: its manifest has no attestation port"
        ))
        .hint("add `attestation: {port: 443}` to the manifest and build it again"));
    };
    let end = Instant::now() + LIMIT;
    // A server of TLS sends nothing before its client does, so nothing is there yet.
    let Tunnel { stream, .. } = tunnel::open(directory, port)?;
    Answer::request(Deadline::new(stream, end), HOST, port)
        .map_err(|error| Error::enclave(format!("{name} sent no evidence")).because(error))
}
