//! Requests as an enclave sends them, parsed as hostile bytes.
//!
//! Invariant: every request that [`crate::Module`] sends is read as it was meant. Fields may be in any order and unknown ones are
//! skipped, as the vendor's library does; a repeated field is refused.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as Malformed};

use super::response::Refusal;
use crate::model::{Claims, DATA_LIMIT, KEY_LIMIT, REQUEST_LIMIT};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `DescribeNSM`.
    Describe,
    /// `GetRandom`.
    Random,
    /// `DescribePCR`.
    Pcr {
        /// The register, which may be one that does not exist.
        index: u16,
    },
    /// `ExtendPCR`.
    Extend {
        /// The register.
        index: u16,
        /// The data: shorter than a request.
        data: &'a [u8],
    },
    /// `LockPCR`.
    Lock {
        /// The register.
        index: u16,
    },
    /// `LockPCRs`.
    LockBelow {
        /// The first register that is not to be locked.
        range: u16,
    },
    /// `Attestation`, with claims within their limits.
    Attest(Claims<'a>),
}

/// The fields of a request, before it is known which of them it needs.
#[derive(Debug, Default)]
struct Fields<'a> {
    index: Option<u16>,
    range: Option<u16>,
    data: Option<&'a [u8]>,
    user_data: Option<Claim<'a>>,
    nonce: Option<Claim<'a>>,
    public_key: Option<Claim<'a>>,
}

/// A claim, which may be null.
#[derive(Clone, Copy, Debug)]
struct Claim<'a>(Option<&'a [u8]>);

impl<'a> Request<'a> {
    /// Parses a request.
    ///
    /// # Errors
    /// [`Refusal::InputTooLarge`] if it or one of its claims is too long, [`Refusal::InvalidOperation`] if there is no such
    /// request, [`Refusal::InvalidArgument`] if its fields are not those that it needs.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > REQUEST_LIMIT {
            return Err(Refusal::InputTooLarge);
        }
        let mut read = Decoder::new(bytes);
        let request = match read.datatype() {
            Ok(Type::String) => match read.str() {
                Ok("DescribeNSM") => Self::Describe,
                Ok("GetRandom") => Self::Random,
                _ => return Err(Refusal::InvalidOperation),
            },
            Ok(Type::Map) => Self::with_fields(&mut read)?,
            _ => return Err(Refusal::InvalidOperation),
        };
        if read.position() == bytes.len() { Ok(request) } else { Err(Refusal::InvalidArgument) }
    }

    fn with_fields(read: &mut Decoder<'a>) -> Result<Self, Refusal> {
        let (Ok(Some(1)), Ok(name)) = (read.map(), read.str()) else { return Err(Refusal::InvalidOperation) };
        let names = ["DescribePCR", "ExtendPCR", "LockPCR", "LockPCRs", "Attestation"];
        if !names.contains(&name) {
            return Err(Refusal::InvalidOperation);
        }
        let fields = Fields::read(read).map_err(|_| Refusal::InvalidArgument)?;
        let request = match (name, fields.index, fields.range, fields.data) {
            ("DescribePCR", Some(index), _, _) => Self::Pcr { index },
            ("ExtendPCR", Some(index), _, Some(data)) => Self::Extend { index, data },
            ("LockPCR", Some(index), _, _) => Self::Lock { index },
            ("LockPCRs", _, Some(range), _) => Self::LockBelow { range },
            ("Attestation", ..) => Self::Attest(fields.claims()?),
            _ => return Err(Refusal::InvalidArgument),
        };
        Ok(request)
    }
}

impl<'a> Fields<'a> {
    fn read(read: &mut Decoder<'a>) -> Result<Self, Malformed> {
        let count = read.map()?.ok_or_else(|| Malformed::message("a map of indefinite length"))?;
        let mut fields = Self::default();
        for _ in 0..count {
            match read.str()? {
                "index" => once(&mut fields.index, read.u16()?)?,
                "range" => once(&mut fields.range, read.u16()?)?,
                "data" => once(&mut fields.data, read.bytes()?)?,
                "user_data" => once(&mut fields.user_data, Claim::read(read)?)?,
                "nonce" => once(&mut fields.nonce, Claim::read(read)?)?,
                "public_key" => once(&mut fields.public_key, Claim::read(read)?)?,
                _ => read.skip()?,
            }
        }
        Ok(fields)
    }

    /// The claims. A public key is not empty (same source as the limits).
    fn claims(&self) -> Result<Claims<'a>, Refusal> {
        let within = |claim: Option<Claim<'a>>, limit| match claim.and_then(|claim| claim.0) {
            Some(bytes) if bytes.len() > limit => Err(Refusal::InputTooLarge),
            claim => Ok(claim),
        };
        let claims = Claims {
            user_data: within(self.user_data, DATA_LIMIT)?,
            nonce: within(self.nonce, DATA_LIMIT)?,
            public_key: within(self.public_key, KEY_LIMIT)?,
        };
        if claims.public_key.is_some_and(<[u8]>::is_empty) {
            return Err(Refusal::InvalidArgument);
        }
        Ok(claims)
    }
}

impl<'a> Claim<'a> {
    fn read(read: &mut Decoder<'a>) -> Result<Self, Malformed> {
        if read.datatype()? == Type::Null {
            return read.null().map(|()| Self(None));
        }
        read.bytes().map(|bytes| Self(Some(bytes)))
    }
}

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::message("a repeated field")),
    }
}
