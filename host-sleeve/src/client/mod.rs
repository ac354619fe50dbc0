//! Requests to the enclaves of this user.
//!
//! Invariant: it sends requests and returns replies; nothing here makes decisions about an enclave. Other commands send
//! requests through the socket of the enclave's sleeve, the sleeve's own parts through its channel to the enclave.

mod request;
mod socket;
pub(crate) mod tunnel;
pub(crate) mod usage;

pub(crate) use request::EnclaveRequest;
pub(crate) use socket::{Client, Envelope, SOCKET, SleeveRequest, Tunnel, VERSION};
