//! The signatures of evidence alone: as many as a verification needs, of the same kinds, over as many bytes, by the same crates.

use p384::ecdsa::signature::{Signer as _, Verifier as _};
use rsa::pkcs1::RsaPublicKeyRef;
use sha2::Sha384;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::{ARK, Check};

/// Bytes of what the five signatures of a document are over: four certificates and the payload.
const DOCUMENT_SIGNED: [usize; 5] = [590, 690, 590, 520, 4500];

/// RSA signatures of a report: of its three certificates.
const REPORT_RSA: usize = 3;

/// Bytes of what the report's own signature is over.
const REPORT_SIGNED: [usize; 1] = [0x2a0];

/// Bytes of what the signatures of this quote and its collateral are over: the root's certificate in each of three chains; both
/// revocation lists; the certificates of the signer, the authority and the platform; TCB info and the quoting enclave's identity; the
/// enclave's report and the quote.
const QUOTE_SIGNED: [usize; 12] = [568, 568, 568, 203, 461, 566, 577, 1178, 2934, 2572, 384, 632];

pub(crate) fn document() -> Option<Check> {
    p384_signatures(&DOCUMENT_SIGNED)
}

pub(crate) fn report() -> Option<Check> {
    let (certificates, own) = (rsa_signatures(REPORT_RSA)?, p384_signatures(&REPORT_SIGNED)?);
    Some(Box::new(move || certificates() && own()))
}

pub(crate) fn quote() -> Option<Check> {
    p256_signatures(&QUOTE_SIGNED)
}

/// The signature of the ARK's own certificate, this many times.
fn rsa_signatures(count: usize) -> Option<Check> {
    let ark = Certificate::from_der(ARK).ok()?;
    let fields = ark.tbs_certificate();
    let key = fields.subject_public_key_info().subject_public_key.as_bytes()?.to_vec();
    let (message, signature) = (fields.to_der().ok()?, ark.signature().as_bytes()?.to_vec());
    let verify = move || {
        let key = RsaPublicKeyRef::from_der(&key).ok().and_then(|key| rsa::PublicKey::try_from(key).ok());
        key.is_some_and(|key| key.pss_verify::<Sha384>(&message, &signature).is_ok())
    };
    Some(Box::new(move || (0..count).all(|_| verify())))
}

/// A signature over each of these lengths, with ECDSA and SHA-384 on P-384.
fn p384_signatures(lengths: &[usize]) -> Option<Check> {
    let key = p384::ecdsa::SigningKey::from_slice(&[7; 48]).ok()?;
    let point = p384::ecdsa::VerifyingKey::from(&key).to_sec1_point(false);
    let signed = lengths.iter().map(|length| {
        let message = vec![7; *length];
        let signature: p384::ecdsa::Signature = key.sign(&message);
        (message, signature)
    });
    let signed: Vec<_> = signed.collect();
    Some(Box::new(move || {
        signed.iter().all(|(message, signature)| {
            p384::ecdsa::VerifyingKey::from_sec1_bytes(point.as_bytes())
                .is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    }))
}

/// A signature over each of these lengths, with ECDSA and SHA-256 on P-256.
fn p256_signatures(lengths: &[usize]) -> Option<Check> {
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).ok()?;
    let point = p256::ecdsa::VerifyingKey::from(&key).to_sec1_point(false);
    let signed = lengths.iter().map(|length| {
        let message = vec![7; *length];
        let signature: p256::ecdsa::Signature = key.sign(&message);
        (message, signature)
    });
    let signed: Vec<_> = signed.collect();
    Some(Box::new(move || {
        signed.iter().all(|(message, signature)| {
            p256::ecdsa::VerifyingKey::from_sec1_bytes(point.as_bytes())
                .is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    }))
}
