//! What an enclave's certificate contains.
//!
//! Invariant: there is one form: a certificate that is encoded differently, or has anything else in its extensions, is refused.
//! Nothing read here is authentic before the evidence has been verified with the key and the serial number.

use cloister_evidence::binding::certificate::{Carried, OID, SERIAL};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::{Certificate, Version};

use crate::refusal::Refusal;

/// The extension with the evidence.
const EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap(OID);

/// A certificate that can be read.
#[derive(Debug)]
pub(crate) struct Parts {
    certificate: Certificate,
    /// Its key, as `SubjectPublicKeyInfo` in DER.
    pub(crate) public_key: Vec<u8>,
}

impl Parts {
    /// Reads a certificate of any kind in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Refusal> {
        let malformed = |_| Refusal::Certificate("it is not X.509 in DER");
        let certificate = Certificate::from_der(der).map_err(malformed)?;
        let spki = certificate.tbs_certificate().subject_public_key_info();
        let public_key = spki.to_der().map_err(malformed)?;
        if certificate.to_der().map_err(malformed)? != der {
            return Err(Refusal::Certificate("its encoding is not canonical"));
        }
        Ok(Self { certificate, public_key })
    }

    /// The nonce of its evidence.
    pub(crate) fn serial(&self) -> Result<&[u8], Refusal> {
        let serial = self.certificate.tbs_certificate().serial_number().as_bytes();
        if serial.len() == SERIAL && serial.first().is_some_and(|first| (0x40..0x80).contains(first)) {
            return Ok(serial);
        }
        Err(Refusal::Certificate("its serial number is not a nonce of 16 bytes"))
    }

    /// The evidence in its only extension.
    pub(crate) fn carried(&self) -> Result<Carried, Refusal> {
        let body = self.certificate.tbs_certificate();
        let extensions = body.extensions().map_or(&[][..], Vec::as_slice);
        let [extension] = extensions else {
            let has_evidence = extensions.iter().any(|extension| extension.extn_id == EXTENSION);
            return Err(Refusal::Certificate(if has_evidence {
                "it has other extensions than the one with evidence"
            } else {
                "it contains no evidence"
            }));
        };
        if extension.extn_id != EXTENSION {
            return Err(Refusal::Certificate("it contains no evidence"));
        }
        if body.version() != Version::V3 {
            return Err(Refusal::Certificate("it is not of version 3"));
        }
        if extension.critical {
            return Err(Refusal::Certificate("the extension with evidence is critical"));
        }
        Ok(Carried::decode(extension.extn_value.as_bytes())?)
    }
}
