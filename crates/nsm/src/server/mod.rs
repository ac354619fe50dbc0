//! The module's side: requests are parsed, responses and attestation documents are written.
//!
//! Invariant: a request is hostile; it is parsed to its last byte or refused, and what it contains is within the module's
//! limits. Nothing here has a state or a key: what a request does is up to the caller.

mod document;
mod request;
mod response;

pub use document::{Document, signed, to_be_signed};
pub use request::Request;
pub use response::{Refusal, Response};

#[cfg(test)]
mod tests;
