//! Backends: where an enclave can run.
//!
//! Invariant: a backend creates a machine from an enclave image, connects to it and terminates it; it makes no decisions about
//! the enclave's lifecycle. Each implements [`contract`], is registered by name in [`list`], and builds its command line or
//! request with a pure function.

mod contract;
pub(crate) mod finding;
pub(crate) mod leftovers;
pub(crate) mod list;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod platform;
mod qemu;
pub(crate) mod size;

pub(crate) use contract::{Backend, BootedParts, Console, Deployment, MachineExit, MachineLimits, Plan};
