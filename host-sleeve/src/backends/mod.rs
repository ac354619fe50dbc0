//! Where an enclave can run.
//!
//! Its law: a backend knows how to make a machine out of an enclave image, how to reach it and how to end it; it decides
//! nothing about the enclave's life. Each keeps [`contract`], is found by name in [`list`], and builds its command line or request
//! by a pure function.

mod contract;
pub(crate) mod finding;
pub(crate) mod list;
pub(crate) mod memory;
pub(crate) mod options;
mod qemu;
pub(crate) mod remains;
pub(crate) mod size;

pub(crate) use contract::{Backend, Console, Deployment, Ending, MachineLimits, Plan};
