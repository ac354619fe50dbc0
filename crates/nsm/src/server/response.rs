//! Responses as a module sends them.
//!
//! Invariant: a response has one form, that of the vendor's library.

use std::convert::Infallible;
use std::fmt;

use minicbor::encode::{Encoder, Error as EncodeError};

use crate::model::{Description, Pcr};

/// A response. Which one a request gets is up to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// To `DescribeNSM`.
    Description(&'a Description),
    /// To `GetRandom`: at most 256 bytes.
    Random(&'a [u8]),
    /// To `DescribePCR`.
    Pcr(&'a Pcr),
    /// To `ExtendPCR`: the register's new value.
    Extended(&'a [u8]),
    /// To `LockPCR`.
    Locked,
    /// To `LockPCRs`.
    LockedBelow,
    /// To `Attestation`: the signed document.
    Document(&'a [u8]),
    /// To any request that is refused.
    Refused(Refusal),
}

/// Why a module refuses a request (`ErrorCode` of the vendor's library, whose comments define them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An argument is invalid.
    InvalidArgument,
    /// There is no such register.
    InvalidIndex,
    /// The response does not correspond to the request.
    InvalidResponse,
    /// The register is locked.
    ReadOnlyIndex,
    /// There is no such operation.
    InvalidOperation,
    /// The response does not fit into the buffer.
    BufferTooSmall,
    /// An argument is too long.
    InputTooLarge,
    /// The module failed.
    InternalError,
}

type Written = Result<(), EncodeError<Infallible>>;

impl Response<'_> {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(|out| self.write(out))
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) -> Written {
        match self {
            Self::Description(description) => describe(out.map(1)?.str("DescribeNSM")?.map(7)?, description),
            Self::Random(bytes) => field(out, "GetRandom", "random", bytes),
            Self::Pcr(pcr) => out
                .map(1)?
                .str("DescribePCR")?
                .map(2)?
                .str("lock")?
                .bool(pcr.locked)?
                .str("data")?
                .bytes(&pcr.value)?
                .ok(),
            Self::Extended(value) => field(out, "ExtendPCR", "data", value),
            Self::Locked => out.str("LockPCR")?.ok(),
            Self::LockedBelow => out.str("LockPCRs")?.ok(),
            Self::Document(document) => field(out, "Attestation", "document", document),
            Self::Refused(refusal) => out.map(1)?.str("Error")?.str(refusal.name())?.ok(),
        }
    }
}

impl Refusal {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::InvalidIndex => "InvalidIndex",
            Self::InvalidResponse => "InvalidResponse",
            Self::ReadOnlyIndex => "ReadOnlyIndex",
            Self::InvalidOperation => "InvalidOperation",
            Self::BufferTooSmall => "BufferTooSmall",
            Self::InputTooLarge => "InputTooLarge",
            Self::InternalError => "InternalError",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Refusal {}

/// Writes CBOR into memory.
pub(super) fn encode(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    // Writing to memory does not fail; if it did, every reader would refuse the empty response.
    match write(&mut out) {
        Ok(()) => out.into_writer(),
        Err(_) => Vec::new(),
    }
}

fn field(out: &mut Encoder<Vec<u8>>, name: &str, field: &str, value: &[u8]) -> Written {
    out.map(1)?.str(name)?.map(1)?.str(field)?.bytes(value)?.ok()
}

fn describe(out: &mut Encoder<Vec<u8>>, seen: &Description) -> Written {
    let (major, minor, patch) = seen.version;
    out.str("version_major")?
        .u16(major)?
        .str("version_minor")?
        .u16(minor)?
        .str("version_patch")?
        .u16(patch)?;
    out.str("module_id")?.str(&seen.module_id)?.str("max_pcrs")?.u16(seen.max_pcrs)?;
    out.str("locked_pcrs")?.array(u64::try_from(seen.locked_pcrs.len()).unwrap_or(u64::MAX))?;
    for index in &seen.locked_pcrs {
        out.u16(*index)?;
    }
    out.str("digest")?.str(&seen.digest)?.ok()
}
