//! Verifies an enclave while TLS connects to it: a certificate verifier for rustls.
//!
//! Invariant: no byte of the application is sent before the evidence has passed every check of its platform and the other end has
//! proved that it has the key which the evidence binds. The certificate itself is trusted for nothing. The time of a
//! verification is passed in, by rustls or by the caller; only [`Deadline`] reads a clock.
//!
//! docs/evidence.md specifies the certificate and the checks, docs/attestation.md the server. Which measurements are accepted is
//! the caller's decision ([`Requirements`]), and so is which platforms are: AWS Nitro by default, AMD SEV-SNP and Intel TDX with
//! [`SnpRequirements`] and [`TdxRequirements`], and the development platform `virtual`. What a verification needs besides the evidence is
//! passed in before: nothing is fetched while TLS connects.
//!
//! The connection's evidence is that of its certificate, at most 45 s old:
//!
//! ```
//! use std::sync::Arc;
//! use cloister_client::{IMAGE_REGISTERS, Reference, Requirements, Verifier, config};
//! use rustls::{ClientConnection, StreamOwned};
//!
//! /// Connects to an enclave that runs the image of which these are the measurements.
//! fn connect(
//!     host: &str,
//!     measurements: &[u8],
//! ) -> Result<StreamOwned<ClientConnection, std::net::TcpStream>, Box<dyn std::error::Error>> {
//!     let reference = Reference::nitro("app", measurements, &IMAGE_REGISTERS)?;
//!     let config = config(Verifier::of_evidence(Requirements::of(vec![reference])))?;
//!     let connection = ClientConnection::new(Arc::new(config), host.to_owned().try_into()?)?;
//!     Ok(StreamOwned::new(connection, std::net::TcpStream::connect((host, 443))?))
//! }
//! ```
//!
//! Evidence of this moment is requested with a nonce ([`Answer::request`]); connections afterwards require its key
//! ([`Verifier::of_key`]).

#![forbid(unsafe_code)]

mod attested;
mod certificate;
mod deadline;
mod hardware;
mod refusal;
mod request;
mod requirements;
mod statement;
#[cfg(test)]
mod tests;
mod verifier;

/// The example of the documentation compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/attestation.md")]
struct Documentation;

pub use attested::Attested;
pub use cloister_evidence::eventlog::Log;
pub use cloister_evidence::nitro::{Document, Freshness, Roots};
pub use cloister_evidence::policy::{IMAGE_REGISTERS, Reference};
pub use cloister_evidence::{Verdict, Verified, snp, tdx};
pub use deadline::{Deadline, Socket};
pub use hardware::{SnpRequirements, TdxRequirements};
pub use refusal::Refusal;
pub use request::{Answer, RequestError};
pub use requirements::Requirements;
pub use statement::Statement;
pub use verifier::{Verifier, config};
