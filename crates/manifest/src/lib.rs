//! The manifest: what an enclave runs, who may reach it and what confines it.
//!
//! Its law: what people write is checked once, on the host, with every fault reported at once; what the enclave reads
//! is a [`Manifest`] in canonical JSON, complete and numeric, with nothing left to look up or to interpret twice.
//!
//! [`model`] is what is measured and read inside. The `source` feature, which only the host enables, adds the YAML that
//! people write, its diagnostics and its JSON Schema.

pub mod model;
#[cfg(feature = "source")]
pub mod source;

pub use model::Manifest;
