//! The only crate with unsafe code: safe wrappers for the system calls Cloister needs.
//!
//! Its law: every function here is safe to call with any argument; what the kernel refuses comes back as an error.

#[cfg(feature = "child")]
pub mod child;
