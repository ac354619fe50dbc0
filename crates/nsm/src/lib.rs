//! The requests and responses of the Nitro Security Module: measurements, randomness and evidence of an AWS Nitro enclave.
//!
//! Invariant: it does no I/O but through the given function, and every response is parsed as hostile bytes. It opens no device;
//! `/dev/nsm` and its ioctl are in `cloister-sys`, and `channel`, behind a feature, is the same for the platform `virtual`. Requests and responses are CBOR as the vendor's `aws-nitro-enclaves-nsm-api`
//! writes them: a request without fields is a text, any other a map with one key, its name. [`Module`] is the side of an enclave;
//! [`server`] is that of a module, for the development module of the platform `virtual`.
#![forbid(unsafe_code)]

#[cfg(feature = "channel")]
pub mod channel;
mod model;
mod request;
mod response;
pub mod server;

use std::io;

pub use model::{
    Claims, DATA_LIMIT, Description, KEY_LIMIT, NsmError, Pcr, RANDOM_LIMIT, REQUEST_LIMIT, RESPONSE_LIMIT,
};
use response::Response;

/// A module, accessed through a function that sends it a request and returns its response.
#[derive(Debug)]
pub struct Module<X> {
    exchange: X,
}

impl<X: Fn(&[u8]) -> io::Result<Vec<u8>>> Module<X> {
    /// The module that `exchange` accesses.
    pub fn over(exchange: X) -> Self {
        Self { exchange }
    }

    /// What the module reports about itself (`DescribeNSM`).
    pub fn describe(&self) -> Result<Description, NsmError> {
        Response::read(&self.exchange(&request::describe()?)?, Response::description)
    }

    /// Random bytes: 1 to 256 of them (`GetRandom`).
    pub fn random(&self) -> Result<Vec<u8>, NsmError> {
        Response::read(&self.exchange(&request::random()?)?, Response::random)
    }

    /// A register's value (`DescribePCR`).
    pub fn pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        Response::read(&self.exchange(&request::pcr(index)?)?, Response::pcr)
    }

    /// Extends a register and returns its new value: `SHA384(old ‖ data)` (`ExtendPCR`).
    pub fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError> {
        Response::read(&self.exchange(&request::extend(index, data)?)?, Response::extended)
    }

    /// Makes one register read-only until the enclave ends (`LockPCR`).
    pub fn lock(&self, index: u16) -> Result<(), NsmError> {
        Response::read(&self.exchange(&request::lock(index)?)?, |response| response.done("LockPCR"))
    }

    /// Makes every register below `range` read-only (`LockPCRs`).
    pub fn lock_below(&self, range: u16) -> Result<(), NsmError> {
        Response::read(&self.exchange(&request::lock_below(range)?)?, |response| response.done("LockPCRs"))
    }

    /// A signed attestation document, as COSE bytes (`Attestation`).
    pub fn attest(&self, claims: Claims<'_>) -> Result<Vec<u8>, NsmError> {
        Response::read(&self.exchange(&request::attest(claims)?)?, Response::document)
    }

    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        (self.exchange)(request).map_err(NsmError::Device)
    }
}
