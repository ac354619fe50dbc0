//! The manifest: what an enclave runs, who can reach it and how it is confined.
//!
//! Invariant: the YAML source is checked once, on the host, and all its problems are reported at once. The enclave reads a
//! [`Manifest`] in canonical JSON, complete and numeric, with nothing left to look up or to interpret twice.
//!
//! [`model`] is what is measured and read inside. The `source` feature, which only the host enables, adds the YAML format,
//! its diagnostics and its JSON Schema.

pub mod model;
pub mod platform;
#[cfg(feature = "source")]
pub mod source;

pub use model::Manifest;
pub use platform::Platform;
