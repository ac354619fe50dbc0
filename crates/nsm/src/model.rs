//! Values in the module's requests and answers, and its errors.

use std::{fmt, io};

/// What the module reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The module's version: major, minor, patch.
    pub version: (u16, u16, u16),
    /// Its name, which contains those of the instance and the enclave. Printable ASCII, at most 256 bytes.
    pub module_id: String,
    /// Its number of PCRs.
    pub max_pcrs: u16,
    /// The locked ones, ascending; at most 256.
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

/// The caller's data for an attestation document.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// At most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// At most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// At most 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

/// Why a request failed.
#[derive(Debug)]
pub enum NsmError {
    /// The device or the ioctl failed.
    Device(io::Error),
    /// The request exceeds a limit of the module.
    Request(String),
    /// The module refused the request, with its own name for the reason (`InvalidArgument`, `ReadOnlyIndex`, …).
    Refused(String),
    /// The answer is malformed, or belongs to another request.
    Answer(String),
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
