//! Requests as bytes.
//!
//! Invariant: a request has one form, that of the vendor's library.

use std::convert::Infallible;

use minicbor::encode::{Encoder, Error as EncodeError};

use crate::model::{Claims, DATA_LIMIT, KEY_LIMIT, NsmError};

pub(crate) fn describe() -> Result<Vec<u8>, NsmError> {
    bare("DescribeNSM")
}

pub(crate) fn random() -> Result<Vec<u8>, NsmError> {
    bare("GetRandom")
}

pub(crate) fn pcr(index: u16) -> Result<Vec<u8>, NsmError> {
    with_fields("DescribePCR", 1, |fields| fields.str("index")?.u16(index)?.ok())
}

pub(crate) fn extend(index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError> {
    with_fields("ExtendPCR", 2, |fields| fields.str("index")?.u16(index)?.str("data")?.bytes(data)?.ok())
}

pub(crate) fn lock(index: u16) -> Result<Vec<u8>, NsmError> {
    with_fields("LockPCR", 1, |fields| fields.str("index")?.u16(index)?.ok())
}

pub(crate) fn lock_below(range: u16) -> Result<Vec<u8>, NsmError> {
    with_fields("LockPCRs", 1, |fields| fields.str("range")?.u16(range)?.ok())
}

pub(crate) fn attest(claims: Claims<'_>) -> Result<Vec<u8>, NsmError> {
    let fields = [
        ("user_data", claims.user_data, DATA_LIMIT),
        ("nonce", claims.nonce, DATA_LIMIT),
        ("public_key", claims.public_key, KEY_LIMIT),
    ];
    for (name, bytes, limit) in fields {
        let length = bytes.unwrap_or_default().len();
        if length > limit {
            return Err(NsmError::Request(format!("{name} has {length} bytes, the limit is {limit}")));
        }
    }
    with_fields("Attestation", 3, |out| {
        for (name, bytes, _) in fields {
            match bytes {
                Some(bytes) => out.str(name)?.bytes(bytes)?,
                None => out.str(name)?.null()?,
            };
        }
        Ok(())
    })
}

type Written = Result<(), EncodeError<Infallible>>;

fn bare(name: &str) -> Result<Vec<u8>, NsmError> {
    encode(|out| out.str(name)?.ok())
}

fn with_fields(
    name: &str,
    count: u64,
    fields: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written,
) -> Result<Vec<u8>, NsmError> {
    encode(|out| fields(out.map(1)?.str(name)?.map(count)?))
}

fn encode(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Result<Vec<u8>, NsmError> {
    let mut out = Encoder::new(Vec::new());
    write(&mut out).map_err(|error| NsmError::Request(error.to_string()))?;
    Ok(out.into_writer())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those of aws-nitro-enclaves-nsm-api 0.5.0 with `serde_cbor` 0.11.2.
    #[test]
    fn requests_have_the_bytes_of_the_vendors_library() {
        assert_eq!(describe().unwrap(), b"\x6bDescribeNSM");
        assert_eq!(random().unwrap(), b"\x69GetRandom");
        assert_eq!(pcr(16).unwrap(), b"\xa1\x6bDescribePCR\xa1\x65index\x10");
        assert_eq!(extend(16, b"boot").unwrap(), b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x44boot");
        assert_eq!(lock(16).unwrap(), b"\xa1\x67LockPCR\xa1\x65index\x10");
        assert_eq!(lock_below(17).unwrap(), b"\xa1\x68LockPCRs\xa1\x65range\x11");
        let key = [7; 32];
        let claims = Claims { user_data: None, nonce: Some(b"nonce"), public_key: Some(&key) };
        let expected: &[u8] =
            b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x45nonce\x6apublic_key\x58\x20";
        assert_eq!(attest(claims).unwrap(), [expected, &key].concat());
    }

    #[test]
    fn claims_over_their_limits_are_refused_before_a_request_is_sent() {
        let long = [0; 1025];
        let refused = |claims| attest(claims).unwrap_err().to_string();
        let nonce = refused(Claims { nonce: Some(&long[..513]), ..Claims::default() });
        assert!(nonce.ends_with("nonce has 513 bytes, the limit is 512"), "{nonce}");
        let key = refused(Claims { public_key: Some(&long), ..Claims::default() });
        assert!(key.ends_with("public_key has 1025 bytes, the limit is 1024"), "{key}");
        let longest = Claims {
            user_data: Some(&long[..512]),
            nonce: Some(&long[..512]),
            public_key: Some(&long[..1024]),
        };
        assert!(attest(longest).is_ok());
    }
}
