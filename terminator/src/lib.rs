//! The terminator: the servant that ends TLS.
//!
//! Invariant: it parses what strangers send, so it has no key, no file, no device and no way to connect anywhere. The gateway
//! gives it connections, the attestor certificates and signatures; the decrypted bytes go to the attestor alone.
//!
//! | module | job |
//! |---|---|
//! | [`program`] | the process |
//! | `certificate` | the certificate that is presented |
//! | `id` | IDs of requests to the attestor |
//! | `signer` | signatures of handshakes, from the attestor |
//! | `connection` | one client |
#![forbid(unsafe_code)]

mod certificate;
mod connection;
mod id;
pub mod program;
mod signer;
