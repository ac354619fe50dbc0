//! Where an enclave can run.
//!
//! Its law: a backend knows how to make a machine out of an enclave image, how to reach it and how to end it; it decides
//! nothing about the enclave's life. Each is found by name in [`list`], and each builds its command line or request by a pure
//! function.

mod contract;
mod list;
pub(crate) mod memory;
pub(crate) mod qemu;
pub(crate) mod size;

pub(crate) use contract::{Backend, Console, Deployment, Ending, Plan};
pub(crate) use list::{by_name, for_source};
