//! The signature section: one `COSE_Sign1` (RFC 9052) over PCR0, and the certificate, in CBOR.
//!
//! Invariant: the encoder has one form; the decoder accepts definite lengths only, and nothing before, between or after the
//! parts. No length in the input allocates memory before its bytes have been read. The vendor's encoding is followed where
//! it is unusual: byte strings inside its structures are arrays of numbers.

use std::convert::Infallible;

use minicbor::data::{Tag, Type};
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError};
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};

use crate::measure::Pcr;
use crate::wide;

/// The protected header: the algorithm (1) is ES384 (-35).
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// The tag that a `COSE_Sign1` may have (RFC 9052, section 2).
const SIGN1: Tag = Tag::new(18);

/// The signed payload: a register's number and value.
pub(crate) fn payload(pcr0: &Pcr) -> Vec<u8> {
    encode(|out| {
        out.map(2)?.str("register_index")?.u8(0)?.str("register_value")?;
        numbers(out, pcr0.bytes())
    })
}

/// The bytes over which the signature is computed (`Sig_structure`).
pub(crate) fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    encode(|out| out.array(4)?.str("Signature1")?.bytes(&PROTECTED)?.bytes(&[])?.bytes(payload)?.ok())
}

/// The section's bytes.
pub(crate) fn section(payload: &[u8], signature: &[u8], certificate: &str) -> Vec<u8> {
    let sign1 = encode(|out| out.array(4)?.bytes(&PROTECTED)?.map(0)?.bytes(payload)?.bytes(signature)?.ok());
    encode(|out| {
        out.array(1)?.map(2)?.str("signing_certificate")?;
        numbers(out, certificate.as_bytes())?;
        numbers(out.str("signature")?, &sign1)
    })
}

/// The contents of a signature section.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The certificate's PEM text.
    pub(crate) certificate: String,
    sign1: Sign1,
}

#[derive(Debug)]
struct Sign1 {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    /// Decodes a section.
    pub(crate) fn decode(section: &[u8]) -> Result<Self, &'static str> {
        const FIELDS: &str = "an entry has unexpected fields";
        let mut read = Decoder::new(section);
        if length(read.array(), "it is not an array")? != 1 {
            return Err("it does not contain exactly one signature");
        }
        if length(read.map(), "an entry is not a map")? != 2 {
            return Err(FIELDS);
        }
        let (mut certificate, mut sign1) = (None, None);
        for _ in 0..2 {
            match read.str().map_err(mismatch(FIELDS))? {
                "signing_certificate" => certificate = Some(octets(&mut read)?),
                "signature" => sign1 = Some(octets(&mut read)?),
                _ => return Err(FIELDS),
            }
        }
        end(&read)?;
        let (Some(certificate), Some(sign1)) = (certificate, sign1) else { return Err(FIELDS) };
        let certificate = String::from_utf8(certificate).map_err(|_| "its certificate is not text")?;
        Ok(Self { certificate, sign1: Sign1::decode(&sign1)? })
    }

    /// Verifies that it signs this value of PCR0 with this key.
    pub(crate) fn verify(&self, pcr0: &Pcr, key: &VerifyingKey) -> Result<(), &'static str> {
        if self.sign1.payload != payload(pcr0) {
            return Err("the signed payload is not PCR0 of this file");
        }
        let signature = Signature::from_slice(&self.sign1.signature);
        let signature = signature.map_err(|_| "it is not a P-384 signature")?;
        let signed = to_be_signed(&self.sign1.payload);
        key.verify(&signed, &signature).map_err(|_| "the signature was not made with the certificate's key")
    }
}

impl Sign1 {
    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        const FORM: &str = "its signature is not a COSE_Sign1";
        const HEADERS: &str = "its signature has headers other than the algorithm ES384";
        let mut read = Decoder::new(bytes);
        if read.datatype().is_ok_and(|kind| kind == Type::Tag) && read.tag().map_err(mismatch(FORM))? != SIGN1
        {
            return Err(FORM);
        }
        if length(read.array(), FORM)? != 4 {
            return Err(FORM);
        }
        let protected = read.bytes().map_err(mismatch(HEADERS))?;
        if protected != PROTECTED || length(read.map(), HEADERS)? != 0 {
            return Err(HEADERS);
        }
        let payload = read.bytes().map_err(mismatch(FORM))?.to_vec();
        let signature = read.bytes().map_err(mismatch(FORM))?.to_vec();
        end(&read)?;
        Ok(Self { payload, signature })
    }
}

/// Maps a decoding error to its message: a type other than the expected one, or invalid CBOR.
fn mismatch(expected: &'static str) -> impl Fn(DecodeError) -> &'static str {
    move |error| if error.is_type_mismatch() { expected } else { "it is not valid CBOR" }
}

/// The number of elements of an array or map, which must precede them.
fn length(read: Result<Option<u64>, DecodeError>, expected: &'static str) -> Result<u64, &'static str> {
    read.map_err(mismatch(expected))?.ok_or("its CBOR has arrays or maps of indefinite length")
}

fn end(read: &Decoder<'_>) -> Result<(), &'static str> {
    if read.position() == read.input().len() { Ok(()) } else { Err("bytes follow its CBOR") }
}

/// A byte string that is encoded as an array of numbers.
fn octets(read: &mut Decoder<'_>) -> Result<Vec<u8>, &'static str> {
    let count = length(read.array(), "a byte string is not encoded as an array of numbers")?;
    let mut octets = Vec::new();
    for _ in 0..count {
        octets.push(read.u8().map_err(mismatch("a byte string contains something other than bytes"))?);
    }
    Ok(octets)
}

type Written = Result<(), EncodeError<Infallible>>;

fn encode(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    // Writing to memory does not fail; if it did, every reader would refuse the empty section.
    match write(&mut out) {
        Ok(()) => out.into_writer(),
        Err(_) => Vec::new(),
    }
}

/// The vendor's form of a byte string.
fn numbers(out: &mut Encoder<Vec<u8>>, bytes: &[u8]) -> Written {
    out.array(wide(bytes.len()))?;
    bytes.iter().try_for_each(|byte| out.u8(*byte)?.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signature section of `vendor-signed.eif`: the last one of the file, after a section header of 12 bytes whose
    /// last eight are its length.
    fn vendors_section() -> &'static [u8] {
        let file = include_bytes!("test_data/vendor-signed.eif");
        let name = b"signing_certificate";
        let place = file.windows(name.len()).position(|bytes| bytes == name).unwrap();
        // Before the name: the heads of an array, a map and the name itself, one byte each.
        &file[place - 3..]
    }

    #[test]
    fn a_section_made_of_the_vendors_parts_has_the_vendors_bytes() {
        let vendor = vendors_section();
        let Signed { certificate, sign1 } = Signed::decode(vendor).unwrap();
        assert_eq!(section(&sign1.payload, &sign1.signature, &certificate), vendor);
    }

    #[test]
    fn a_section_with_an_indefinite_or_impossible_length_is_refused() {
        let sound = vendors_section();
        let open_array = [&[0x9f], &sound[1..], &[0xff]].concat();
        assert_eq!(
            Signed::decode(&open_array).unwrap_err(),
            "its CBOR has arrays or maps of indefinite length"
        );
        // An array whose stated length exceeds any memory.
        let mut endless = sound[..3 + 19].to_vec();
        endless.extend([0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(Signed::decode(&endless).unwrap_err(), "it is not valid CBOR");
    }

    #[test]
    fn a_repeated_field_does_not_replace_the_missing_one() {
        let field =
            |name: &str| [&[0x60 + u8::try_from(name.len()).unwrap()], name.as_bytes(), &[0x80]].concat();
        let twice = [&[0x81, 0xa2][..], &field("signature"), &field("signature")].concat();
        assert_eq!(Signed::decode(&twice).unwrap_err(), "an entry has unexpected fields");
    }

    #[test]
    fn a_signature_may_have_its_own_tag_but_no_other() {
        let Signed { sign1, .. } = Signed::decode(vendors_section()).unwrap();
        let bytes = |tag: u8| {
            let untagged = encode(|out| {
                out.array(4)?.bytes(&PROTECTED)?.map(0)?.bytes(&sign1.payload)?.bytes(&sign1.signature)?.ok()
            });
            [&[0xc0 + tag][..], &untagged].concat()
        };
        assert_eq!(Sign1::decode(&bytes(18)).unwrap().payload, sign1.payload);
        assert_eq!(Sign1::decode(&bytes(17)).unwrap_err(), "its signature is not a COSE_Sign1");
    }

    #[test]
    fn every_truncation_of_a_section_is_refused() {
        let sound = vendors_section();
        for length in 0..sound.len() {
            assert!(Signed::decode(&sound[..length]).is_err(), "{length} bytes");
        }
    }
}
