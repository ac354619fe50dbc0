//! The requests and answers of the Nitro Security Module: measurements, randomness and evidence of an AWS Nitro enclave.
//!
//! Invariant: all bytes are exchanged through a function of the caller, and every answer is parsed as untrusted input. No device
//! is opened here; `/dev/nsm` and its ioctl are in `cloister-sys`. Requests and answers are CBOR as encoded by the vendor's
//! `aws-nitro-enclaves-nsm-api`: a text for a request without fields; for others, a map with one key, the request's name.
#![forbid(unsafe_code)]

mod answer;
mod model;
mod request;

use std::io;

use answer::Answer;
pub use model::{Claims, Description, NsmError, Pcr};

/// A module, reached through a function that sends it a request and returns its answer.
#[derive(Debug)]
pub struct Module<X> {
    exchange: X,
}

impl<X: Fn(&[u8]) -> io::Result<Vec<u8>>> Module<X> {
    /// The module that is reached through `exchange`.
    pub fn over(exchange: X) -> Self {
        Self { exchange }
    }

    /// What the module reports about itself (`DescribeNSM`).
    pub fn describe(&self) -> Result<Description, NsmError> {
        Answer::read(&self.exchange(&request::describe()?)?, Answer::description)
    }

    /// Some random bytes, at least one and at most 256 (`GetRandom`).
    pub fn random(&self) -> Result<Vec<u8>, NsmError> {
        Answer::read(&self.exchange(&request::random()?)?, Answer::random)
    }

    /// A register's value (`DescribePCR`).
    pub fn pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        Answer::read(&self.exchange(&request::pcr(index)?)?, Answer::pcr)
    }

    /// Extends a register and returns its new value: `SHA384(old ‖ data)` (`ExtendPCR`).
    pub fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError> {
        Answer::read(&self.exchange(&request::extend(index, data)?)?, Answer::extended)
    }

    /// Makes one register read-only until the enclave ends (`LockPCR`).
    pub fn lock(&self, index: u16) -> Result<(), NsmError> {
        Answer::read(&self.exchange(&request::lock(index)?)?, |answer| answer.done("LockPCR"))
    }

    /// Makes every register below `range` read-only (`LockPCRs`).
    pub fn lock_below(&self, range: u16) -> Result<(), NsmError> {
        Answer::read(&self.exchange(&request::lock_below(range)?)?, |answer| answer.done("LockPCRs"))
    }

    /// A signed attestation document, as COSE bytes (`Attestation`).
    pub fn attest(&self, claims: Claims<'_>) -> Result<Vec<u8>, NsmError> {
        Answer::read(&self.exchange(&request::attest(claims)?)?, Answer::document)
    }

    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        (self.exchange)(request).map_err(NsmError::Device)
    }
}
