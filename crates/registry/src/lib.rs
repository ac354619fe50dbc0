//! Pulls images from a registry into a cache, from which the image crate reads them.
//!
//! Invariant: every file in the cache has the digest that is its name. A tag is resolved once to a digest, which the build uses
//! and the build record contains; a digest whose blobs are all in the cache needs no network.
//!
//! Source: the OCI distribution specification 1.1 and Docker's token protocol (`distribution/docs/spec/auth/token`). The
//! client is our own, based on `ureq`: pulling takes four kinds of request, and every response has to be bounded, which existing
//! client crates leave to their user, while they add an asynchronous runtime and a second TLS library.

mod cache;
pub mod challenge;
mod client;
mod credentials;
mod error;
mod fetch;
mod layers;
mod prune;
mod pull;
mod response;
mod retry;
mod route;
mod token;
mod trust;

pub use cache::Lock;
pub use error::{PullError, RegistryError};
pub use fetch::Pulled;
pub use prune::{PruneError, Pruned, prune};
pub use pull::{Access, Event, Pull};

#[cfg(test)]
mod tests;
