//! The requests and answers of the Nitro Security Module: measurements, randomness and evidence of an AWS Nitro enclave.
//!
//! Its law: bytes go out and come in through the function it is given, and every answer is parsed as hostile bytes. It opens
//! no device; `/dev/nsm` and its ioctl are in `cloister-sys`. Requests and answers are CBOR as the vendor's
//! `aws-nitro-enclaves-nsm-api` writes them: a text for a request without fields, else a map with one key, its name.
#![forbid(unsafe_code)]

mod answer;
mod request;

use std::{fmt, io};

use answer::Answer;

/// A module, reached through a function that hands it a request and returns its answer.
#[derive(Debug)]
pub struct Module<X> {
    exchange: X,
}

/// What the module reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The module's version: major, minor, patch.
    pub version: (u16, u16, u16),
    /// Its name, which holds the instance's and the enclave's. Printable ASCII, at most 256 bytes.
    pub module_id: String,
    /// How many PCRs it has.
    pub max_pcrs: u16,
    /// Which of them are locked, ascending; at most 256.
    pub locked_pcrs: Vec<u16>,
    /// The hash of its PCRs: `SHA256`, `SHA384` or `SHA512`.
    pub digest: String,
}

/// One platform configuration register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcr {
    /// Whether it can no longer be extended.
    pub locked: bool,
    /// Its value: 32, 48 or 64 bytes.
    pub value: Vec<u8>,
}

/// What an attestation document is to carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// At most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// At most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// At most 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

/// Why the module did not do what it was asked for.
#[derive(Debug)]
pub enum NsmError {
    /// The device or the ioctl failed.
    Device(io::Error),
    /// The request is not one that a module takes.
    Request(String),
    /// The module refused, with its own name for the reason (`InvalidArgument`, `ReadOnlyIndex`, …).
    Refused(String),
    /// The answer is not what the request asks for.
    Answer(String),
}

impl<X: Fn(&[u8]) -> io::Result<Vec<u8>>> Module<X> {
    /// The module that `exchange` reaches.
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

impl fmt::Display for NsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(_) => f.write_str("the Nitro Security Module cannot be reached"),
            Self::Request(why) => write!(f, "a request to the Nitro Security Module cannot be made: {why}"),
            Self::Refused(reason) => write!(f, "the Nitro Security Module refuses: {reason}"),
            Self::Answer(why) => write!(f, "the Nitro Security Module sent a malformed answer: {why}"),
        }
    }
}

impl std::error::Error for NsmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Device(error) => Some(error),
            Self::Request(_) | Self::Refused(_) | Self::Answer(_) => None,
        }
    }
}
