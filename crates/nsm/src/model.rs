//! Values in the module's requests and responses, and its errors.

use std::{fmt, io};

/// Maximum bytes of a request: the driver's buffer (`NSM_REQUEST_MAX_SIZE`, the kernel's `drivers/misc/nsm.c`).
pub const REQUEST_LIMIT: usize = 0x1000;

/// Maximum bytes of a response: the driver's buffer (`NSM_RESPONSE_MAX_SIZE`, same file).
pub const RESPONSE_LIMIT: usize = 0x3000;

/// Maximum bytes of user data and of a nonce in an attestation document (AWS Nitro Enclaves, "Attestation document
/// specification").
pub const DATA_LIMIT: usize = 512;

/// Maximum bytes of a public key in it (same source).
pub const KEY_LIMIT: usize = 1024;

/// Maximum random bytes of one response; a module always returns this number.
pub const RANDOM_LIMIT: usize = 256;

/// What the module reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The module's version: major, minor, patch.
    pub version: (u16, u16, u16),
    /// Its name, which contains those of the instance and the enclave. Printable ASCII, at most 256 bytes.
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

/// Data to be included in an attestation document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// At most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// At most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// At most 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

/// Why a request to the module failed.
#[derive(Debug)]
pub enum NsmError {
    /// The device or the ioctl failed.
    Device(io::Error),
    /// The request is invalid, and was not sent.
    Request(String),
    /// The module refused the request, with its name for the reason (`InvalidArgument`, `ReadOnlyIndex`, …).
    Refused(String),
    /// The response is malformed, or does not match the request.
    Response(String),
}

impl fmt::Display for NsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(_) => f.write_str("cannot access the security module"),
            Self::Request(why) => write!(f, "invalid request to the security module: {why}"),
            Self::Refused(reason) => write!(f, "the security module refused: {reason}"),
            Self::Response(why) => write!(f, "malformed response of the security module: {why}"),
        }
    }
}

impl std::error::Error for NsmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Device(error) => Some(error),
            Self::Request(_) | Self::Refused(_) | Self::Response(_) => None,
        }
    }
}
