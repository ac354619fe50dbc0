//! The envelope of a document: `COSE_Sign1` (RFC 9052, section 4.2).
//!
//! Invariant: the whole header is known. A header that this file does not know refuses the document, as it may change
//! what the signature means.

use alloc::format;
use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::data::{Tag, Type};
use minicbor::decode::Decoder;
use minicbor::encode::{Encoder, Error as EncodeError};

use super::cbor::{self, Maps, Refusal, malformed};

/// Maximum bytes of a document. A module's response, which contains one, has at most 12,288.
const DOCUMENT_LIMIT: usize = 16 << 10;

/// The tag that an envelope may have (RFC 9052, section 2). AWS Nitro writes none.
const SIGN1: Tag = Tag::new(18);

/// The header that names the algorithm (RFC 9052, section 3.1).
const ALGORITHM: i64 = 1;

/// ECDSA with SHA-384 (RFC 9053, section 2.1), on P-384 in these documents.
const ES384: i64 = -35;

/// An envelope, and the parts of it that are signed.
#[derive(Debug)]
pub(super) struct Sign1<'a> {
    protected: &'a [u8],
    unprotected: u64,
    /// The payload. Its signature has not been verified.
    pub(super) payload: &'a [u8],
    /// The signature: two numbers of 48 bytes, if the algorithm is ES384.
    pub(super) signature: &'a [u8],
}

impl<'a> Sign1<'a> {
    /// Reads an envelope, tagged or not.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > DOCUMENT_LIMIT {
            return Err(format!("{} bytes, the limit is {DOCUMENT_LIMIT}", bytes.len()).into());
        }
        let mut read = Decoder::new(bytes);
        if read.datatype().map_err(malformed)? == Type::Tag && read.tag().map_err(malformed)? != SIGN1 {
            return Err("its tag is not that of a COSE_Sign1, 18".into());
        }
        let untagged = bytes.get(read.position()..).unwrap_or_default();
        cbor::check(untagged, Maps::Definite)?;
        if read.array().map_err(|_| Refusal::from("it is not a COSE_Sign1: not an array"))? != Some(4) {
            return Err("it is not a COSE_Sign1: not four elements".into());
        }
        let part = |read: &mut Decoder<'a>, name: &str| {
            read.bytes().map_err(|_| {
                Refusal::from(format!("it is not a COSE_Sign1: its {name} is not a byte string"))
            })
        };
        let protected = part(&mut read, "protected header")?;
        let unprotected = read.map().map_err(|_| Refusal::from("its unprotected header is not a map"))?;
        for _ in 0..unprotected.unwrap_or_default() {
            read.skip().map_err(malformed)?;
            read.skip().map_err(malformed)?;
        }
        let payload = part(&mut read, "payload")?;
        let signature = part(&mut read, "signature")?;
        Ok(Self { protected, unprotected: unprotected.unwrap_or_default(), payload, signature })
    }

    /// Checks that the header contains the algorithm ES384 and nothing else.
    pub(super) fn header(&self) -> Result<(), Refusal> {
        cbor::check(self.protected, Maps::Definite)?;
        let mut read = Decoder::new(self.protected);
        let entries = read.map().map_err(|_| Refusal::from("the protected header is not a map"))?;
        for _ in 0..entries.unwrap_or_default() {
            if read.i64().ok() != Some(ALGORITHM) {
                return Err("the protected header has an entry other than the algorithm".into());
            }
            match read.i64() {
                Ok(ES384) => {}
                Ok(other) => return Err(format!("the algorithm is {other}, not ES384 ({ES384})").into()),
                Err(_) => return Err("the algorithm is not a number".into()),
            }
        }
        if entries != Some(1) {
            return Err("the protected header does not contain an algorithm".into());
        }
        if self.unprotected != 0 {
            return Err("the unprotected header is not empty".into());
        }
        Ok(())
    }

    /// The bytes over which the signature is computed (`Sig_structure`, RFC 9052, section 4.4), without external data.
    pub(super) fn to_be_signed(&self) -> Vec<u8> {
        to_be_signed(self.protected, self.payload)
    }
}

/// The signed bytes for these parts.
pub(super) fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    let written: Result<(), EncodeError<Infallible>> = out
        .array(4)
        .and_then(|out| out.str("Signature1"))
        .and_then(|out| out.bytes(protected))
        .and_then(|out| out.bytes(&[]))
        .and_then(|out| out.bytes(payload))
        .map(drop);
    // Writing to memory does not fail; if it did, the signature would not match.
    if written.is_ok() { out.into_writer() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"\x84\x44\xa1\x01\x38\x22\xa0\x43pay\x43sig";

    fn header(protected: &[u8], unprotected: &[u8]) -> Result<(), Refusal> {
        let length = [0x40 | u8::try_from(protected.len()).unwrap()];
        let bytes = [b"\x84", &length[..], protected, unprotected, b"\x43pay\x43sig"].concat();
        Sign1::read(&bytes)?.header()
    }

    #[test]
    fn an_envelope_is_read_with_and_without_its_tag() {
        for bytes in [GOOD.to_vec(), [b"\xd2", GOOD].concat(), [b"\xd8\x12", GOOD].concat()] {
            let envelope = Sign1::read(&bytes).unwrap();
            assert_eq!((envelope.payload, envelope.signature), (&b"pay"[..], &b"sig"[..]));
            assert_eq!(envelope.header(), Ok(()));
            assert_eq!(envelope.to_be_signed(), b"\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40\x43pay");
        }
    }

    #[test]
    fn anything_but_an_envelope_is_refused() {
        let others: [&[u8]; 8] = [
            b"",
            b"\xa0",
            b"\x83\x40\xa0\x40",
            b"\x84\xa0\xa0\x40\x40",
            b"\x84\x40\x40\x40\x40",
            b"\x84\x40\xa0\xf6\x40",
            b"\xd1\x84\x40\xa0\x40\x40",
            b"\xd2\xd2\x84\x40\xa0\x40\x40",
        ];
        for bytes in others {
            assert!(Sign1::read(bytes).is_err(), "{bytes:02x?}");
        }
        let long = [b"\x84\x40\xa0\x59\x40\x00".as_slice(), &[0; 0x4000], b"\x40"].concat();
        assert_eq!(Sign1::read(&long).unwrap_err(), "16391 bytes, the limit is 16384");
        assert_eq!(Sign1::read(&[GOOD, b"\0"].concat()).unwrap_err(), "1 bytes follow its CBOR");
    }

    #[test]
    fn every_header_other_than_es384_alone_is_refused() {
        assert_eq!(header(b"\xa1\x01\x38\x22", b"\xa0"), Ok(()));
        // QEMU's machine writes algorithm -1, and does not sign.
        assert_eq!(header(b"\xa1\x01\x20", b"\xa0").unwrap_err(), "the algorithm is -1, not ES384 (-35)");
        let others: [(&[u8], &[u8]); 11] = [
            (b"", b"\xa0"),
            (b"\xa0", b"\xa0"),
            (b"\x80", b"\xa0"),
            (b"\xa1\x01\x26", b"\xa0"),
            (b"\xa1\x01\x38\x23", b"\xa0"),
            (b"\xa1\x01\x65ES384", b"\xa0"),
            (b"\xa2\x01\x38\x22\x02\x81\x01", b"\xa0"),
            (b"\xa2\x01\x38\x22\x04\x41k", b"\xa0"),
            (b"\xa2\x01\x38\x22\x01\x38\x22", b"\xa0"),
            (b"\xa1\x01\x38\x22\x00", b"\xa0"),
            (b"\xa1\x01\x38\x22", b"\xa1\x04\x41k"),
        ];
        for (protected, unprotected) in others {
            assert!(header(protected, unprotected).is_err(), "{protected:02x?} {unprotected:02x?}");
        }
    }
}
