//! Attestation evidence: parsing and verification, for every platform.
//!
//! Invariant: pure. The current time, the trusted roots, the collateral and the policy are arguments; the crate
//! performs no I/O, reads no clock and draws no random numbers. Without the feature `tdx` it needs only an allocator. A
//! [`Verified`] value exists only if every check passed.
//!
//! Fetching collateral, and deciding which policy applies, is the caller's task.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod fetch;
mod flags;
pub mod hex;
pub mod nitro;
pub mod policy;
pub mod snp;
#[cfg(feature = "tdx")]
pub mod tdx;
#[cfg(test)]
mod tests;
mod verdict;

pub use cloister_binding as binding;
pub use cloister_binding::eventlog;
pub use fetch::{Fetch, Request, Response};
pub use verdict::{Check, Outcome, Verdict, Verified};
