//! Connections from the host to ports of an enclave.
//!
//! Invariant: [`contract`] defines what every transport guarantees; the other modules implement it.
//!
//! | module | how the host reaches the enclave |
//! |---|---|
//! | `hybrid` | through a device's Unix socket and its `CONNECT` line |
//! | `kernel` | through the kernel, by CID |

mod contract;
mod hybrid;
mod kernel;

pub(crate) use contract::{Pending, Transport, may_succeed_later};
pub(crate) use hybrid::Hybrid;
pub(crate) use kernel::Kernel;
