//! The development security module: what the sleeve offers to an enclave whose machine has no security module of its own.
//!
//! Invariant: nothing that it signs can be mistaken for evidence of hardware: its name begins with `virtual-`, and its certificates
//! state that they are of a development root. Requests are hostile: they are bounded, and change nothing but this enclave's
//! registers. docs/virtual.md states what it proves, and what it does not.
//!
//! | file | job |
//! |---|---|
//! | `registers` | the registers, as on AWS Nitro |
//! | `device` | performs requests |
//! | `signer` | one enclave's key and certificate, from which documents are signed |
//! | `root` | the development root on the disk |
//! | `certificate` | the forms of the two certificates |
//! | `key` | new keys |
//! | `serve` | requests and responses over a channel |

mod certificate;
mod device;
mod key;
mod registers;
mod root;
mod serve;
mod signer;

pub(crate) use device::Module;
pub(crate) use root::DevelopmentRoot;
pub(crate) use serve::{LIMITS, serve};

#[cfg(test)]
mod tests;
