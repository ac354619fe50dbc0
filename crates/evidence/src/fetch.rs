//! How a caller fetches the certificates and the collateral that evidence is verified with.
//!
//! Invariant: this crate builds requests and reads responses, and performs no I/O. What is fetched need not be trusted: verification
//! checks signatures, dates and pinned roots of all of it.

use alloc::string::String;
use alloc::vec::Vec;

/// A GET request over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address.
    pub url: String,
    /// The response's header that is needed besides its body.
    pub header: Option<&'static str>,
    /// The longest body that may be read, in bytes.
    pub limit: usize,
}

/// The response to a request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The body.
    pub body: Vec<u8>,
    /// The value of the requested header.
    pub header: Option<String>,
}

/// Performs requests; implemented by the caller.
pub trait Fetch {
    /// Why a request failed.
    type Error;

    /// Performs one request. A status other than 200 is an error, and so is a body that exceeds the request's limit.
    fn fetch(&self, request: &Request) -> Result<Response, Self::Error>;
}
