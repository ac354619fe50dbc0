//! Asking the enclaves of this user.
//!
//! Its law: it asks, and reports what it hears; nothing here decides about an enclave. Other commands ask through the socket of
//! the enclave's sleeve, the sleeve's own parts through its channel to the enclave.

mod ask;
mod socket;
pub(crate) mod usage;

pub(crate) use ask::Ask;
pub(crate) use socket::{Asked, Client, Envelope, SOCKET, VERSION};
