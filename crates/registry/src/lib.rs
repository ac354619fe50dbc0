//! Images from a registry, put where the image crate reads them.
//!
//! Its law: what is in the cache has the digest that is its name. A tag is asked for once and becomes a digest, which is
//! what is built from and what the build record says; a digest whose blobs are all in the cache needs no network.
//!
//! Source: the OCI distribution specification 1.1 and Docker's token protocol (`distribution/docs/spec/auth/token`). The
//! client is our own over `ureq`: pulling is four kinds of request, and every answer has to be bounded, which the ready
//! client crates leave to their user while they bring an asynchronous runtime and a second TLS library.

mod answer;
mod cache;
pub mod challenge;
mod client;
mod credentials;
mod fault;
mod fetch;
mod layers;
mod prune;
mod pull;
mod retry;
mod route;
mod token;
mod trust;

pub use cache::Lock;
pub use fault::{PullFault, RegistryFault};
pub use fetch::Pulled;
pub use prune::{PruneFault, Pruned, prune};
pub use pull::{Access, Event, Pull};

#[cfg(test)]
mod tests;
