//! Evidence in a TLS certificate: the extension that carries it.
//!
//! Invariant: an extension has one encoding, and nothing in it is authentic before the evidence itself has been verified with
//! the certificate's key and serial number.
//!
//! The extension is a conceptual message wrapper (DICE Attestation Architecture 1.1, section 6.1.8; RATS Conceptual Messages
//! Wrapper, record form): the DER `OCTET STRING` of a CBOR array of a media type, the message, and the number 4, which says that
//! it is evidence. docs/evidence.md specifies it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// The extension's identifier: `tcg-dice-conceptual-message-wrapper`. It is never critical, since TLS libraries refuse a
/// critical extension that they do not know.
pub const OID: &str = "2.23.133.5.4.9";

/// Bytes of a serial number. It is random, and the nonce of the evidence.
pub const SERIAL: usize = 16;

/// Maximum bytes of evidence in a certificate: in base64 it fits into a packet between the servants, and the evidence of every
/// platform without collateral is shorter than half of this.
pub const EVIDENCE_LIMIT: usize = 32 << 10;

/// The first part of the media type, before the platform's name.
const MEDIA_TYPE: &str = "application/vnd.cloister.evidence.";

/// The bit of a wrapper's indicator that says: evidence.
const IS_EVIDENCE: u8 = 4;

/// Longest platform name.
const PLATFORM_LIMIT: usize = 16;

/// Evidence as an extension contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The platform's name: `nitro`, `tdx`, `snp` or `virtual`.
    pub platform: String,
    /// What the platform signed.
    pub evidence: Vec<u8>,
}

/// Why an extension was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedError(&'static str);

impl Carried {
    /// The value of the extension.
    ///
    /// # Errors
    /// If the evidence or the platform's name is too long.
    pub fn encode(&self) -> Result<Vec<u8>, CarriedError> {
        if self.evidence.len() > EVIDENCE_LIMIT {
            return Err(CarriedError("the evidence has more than 32,768 bytes"));
        }
        if self.platform.is_empty() || self.platform.len() > PLATFORM_LIMIT {
            return Err(CarriedError("the name of the platform does not have 1 to 16 bytes"));
        }
        let mut record = Encoder::new(Vec::new());
        let media_type = alloc::format!("{MEDIA_TYPE}{}", self.platform);
        let written = record
            .array(3)
            .and_then(|record| record.str(&media_type)?.bytes(&self.evidence)?.u8(IS_EVIDENCE));
        // A vector takes everything.
        written.map(drop).map_err(|_| CarriedError("it cannot be encoded"))?;
        let record = record.into_writer();
        let mut value = Vec::from([OCTET_STRING]);
        value.extend(der_length(record.len()));
        value.extend(record);
        Ok(value)
    }

    /// Reads the value of an extension.
    ///
    /// # Errors
    /// If it is not exactly what [`Self::encode`] writes.
    pub fn decode(value: &[u8]) -> Result<Self, CarriedError> {
        let record = octets(value).ok_or(CarriedError("it is not the DER of one OCTET STRING"))?;
        let mut decoder = Decoder::new(record);
        let carried =
            read(&mut decoder).map_err(|_| CarriedError("it is not a CBOR record of three items"))?;
        let (media_type, evidence, indicator) = carried;
        let platform =
            media_type.strip_prefix(MEDIA_TYPE).ok_or(CarriedError("its media type is another"))?;
        if indicator != u64::from(IS_EVIDENCE) {
            return Err(CarriedError("it is not marked as evidence"));
        }
        let carried = Self { platform: platform.into(), evidence: evidence.into() };
        // The one encoding: shorter forms, trailing bytes and the like are refused.
        if carried.encode()? == value {
            Ok(carried)
        } else {
            Err(CarriedError("its encoding is not canonical"))
        }
    }
}

/// The identifier octet of a DER `OCTET STRING`.
const OCTET_STRING: u8 = 0x04;

type Record<'a> = (&'a str, &'a [u8], u64);

fn read<'a>(decoder: &mut Decoder<'a>) -> Result<Record<'a>, minicbor::decode::Error> {
    if decoder.array()? != Some(3) || decoder.datatype()? != Type::String {
        return Err(minicbor::decode::Error::message("another form"));
    }
    Ok((decoder.str()?, decoder.bytes()?, decoder.u64()?))
}

/// The length octets of DER for contents of at most 64 KiB.
fn der_length(length: usize) -> Vec<u8> {
    match u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes() {
        [0, low @ ..=127] => Vec::from([low]),
        [0, low] => Vec::from([0x81, low]),
        [high, low] => Vec::from([0x82, high, low]),
    }
}

/// The contents of an `OCTET STRING`, which is all of `value`.
fn octets(value: &[u8]) -> Option<&[u8]> {
    let (length, contents) = match value {
        [OCTET_STRING, length @ ..=127, contents @ ..] | [OCTET_STRING, 0x81, length, contents @ ..] => {
            (usize::from(*length), contents)
        }
        [OCTET_STRING, 0x82, high, low, contents @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])), contents)
        }
        _ => return None,
    };
    (contents.len() == length).then_some(contents)
}

impl fmt::Display for CarriedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the evidence in the certificate is refused: {}", self.0)
    }
}

impl core::error::Error for CarriedError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn carried(platform: &str, length: usize) -> Carried {
        Carried { platform: platform.into(), evidence: vec![7; length] }
    }

    #[test]
    fn an_extension_has_these_bytes() {
        let value = carried("nitro", 2).encode().unwrap();
        let record = b"\x83\x78\x27application/vnd.cloister.evidence.nitro\x42\x07\x07\x04";
        assert_eq!(value, [&[4, 46][..], record].concat());
        assert_eq!(Carried::decode(&value), Ok(carried("nitro", 2)));
    }

    #[test]
    fn another_type_platform_or_length_is_refused() {
        assert!(carried("nitro", EVIDENCE_LIMIT + 1).encode().is_err());
        assert!(carried("", 1).encode().is_err());
        let value = carried("nitro", 2).encode().unwrap();
        let other_type: Vec<u8> = value.iter().map(|byte| if *byte == b'v' { b'w' } else { *byte }).collect();
        assert!(Carried::decode(&other_type).unwrap_err().to_string().ends_with("its media type is another"));
        let mut other_kind = value.clone();
        *other_kind.last_mut().unwrap() = 8;
        assert!(Carried::decode(&other_kind).unwrap_err().to_string().ends_with("not marked as evidence"));
        for end in 0..value.len() {
            assert!(Carried::decode(&value[..end]).is_err(), "{end}");
        }
        assert!(Carried::decode(&[&value[..], b"\0"].concat()).is_err());
        // The indicator 4 in two bytes.
        let record = b"\x83\x78\x27application/vnd.cloister.evidence.nitro\x42\x07\x07\x18\x04";
        let refused = Carried::decode(&[&[4, 47][..], record].concat()).unwrap_err().to_string();
        assert!(refused.ends_with("its encoding is not canonical"), "{refused}");
    }

    proptest! {
        #[test]
        fn evidence_of_any_length_is_read_as_it_was_written(length in prop_oneof![0..400_usize, Just(EVIDENCE_LIMIT)]) {
            let carried = carried("virtual", length);
            prop_assert_eq!(Carried::decode(&carried.encode().unwrap()), Ok(carried));
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(carried) = Carried::decode(&bytes) {
                prop_assert_eq!(carried.encode().unwrap(), bytes);
            }
        }
    }
}
