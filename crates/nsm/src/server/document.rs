//! Attestation documents: the payload, and the `COSE_Sign1` (RFC 9052) around it.
//!
//! Invariant: a document has one form, that of AWS Nitro: untagged, ES384 in the protected header, no other header, and the
//! payload's fields in the order of the vendor's `AttestationDoc`. Keys and signatures are up to the caller.

use super::response::encode;
use crate::model::Claims;

/// The protected header: the algorithm (1) is ES384 (-35).
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// What a document states.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The module's name.
    pub module_id: &'a str,
    /// The hash of the registers.
    pub digest: &'a str,
    /// When it is created, in milliseconds since 1970.
    pub timestamp: u64,
    /// The locked registers with their values, ascending: a document contains no others.
    pub pcrs: &'a [(u16, &'a [u8])],
    /// The certificate whose key signs it, in DER.
    pub certificate: &'a [u8],
    /// The certificates from the root to the issuer of [`Self::certificate`], in DER.
    pub bundle: &'a [&'a [u8]],
    /// What the enclave passed.
    pub claims: Claims<'a>,
}

impl Document<'_> {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let count = |length| u64::try_from(length).unwrap_or(u64::MAX);
        let claims = [
            ("public_key", self.claims.public_key),
            ("user_data", self.claims.user_data),
            ("nonce", self.claims.nonce),
        ];
        encode(|out| {
            out.map(9)?.str("module_id")?.str(self.module_id)?.str("digest")?.str(self.digest)?;
            out.str("timestamp")?.u64(self.timestamp)?.str("pcrs")?.map(count(self.pcrs.len()))?;
            for (index, value) in self.pcrs {
                out.u16(*index)?.bytes(value)?;
            }
            out.str("certificate")?.bytes(self.certificate)?;
            out.str("cabundle")?.array(count(self.bundle.len()))?;
            for certificate in self.bundle {
                out.bytes(certificate)?;
            }
            for (name, claim) in claims {
                match claim {
                    Some(bytes) => out.str(name)?.bytes(bytes)?,
                    None => out.str(name)?.null()?,
                };
            }
            Ok(())
        })
    }
}

/// The bytes over which the signature of a payload is computed (`Sig_structure`).
#[must_use]
pub fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    encode(|out| out.array(4)?.str("Signature1")?.bytes(&PROTECTED)?.bytes(&[])?.bytes(payload)?.ok())
}

/// The document with this payload and its signature: two numbers of 48 bytes.
#[must_use]
pub fn signed(payload: &[u8], signature: &[u8; 96]) -> Vec<u8> {
    encode(|out| out.array(4)?.bytes(&PROTECTED)?.map(0)?.bytes(payload)?.bytes(signature)?.ok())
}
