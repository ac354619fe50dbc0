//! The certificates of a document: from the pinned root to the key that signed it.
//!
//! Invariant: the order is fixed, from the root to the signer; each certificate is the issuer of the next; every one is
//! used, and valid at the given time. webpki checks the path (signatures, dates, authority, path lengths, name
//! constraints, unknown critical extensions); this file checks what webpki leaves to its caller: the order, the
//! algorithms, the key usage, and the root itself.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::cbor::Refusal;
use super::document::Document;

/// `ecdsa-with-SHA384` (RFC 5758, section 3.2).
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// ECDSA with SHA-384 on P-384, for webpki. The key and the signature are in the form of certificates.
#[derive(Debug)]
struct Es384;

/// The certificates, parsed, in the order from the root to the signer.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    document: &'a Document,
    certificates: Vec<Certificate>,
}

/// The SHA-256 digest of a certificate in DER, by which roots are pinned.
pub(super) fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

impl<'a> Chain<'a> {
    /// Parses the certificates.
    pub(super) fn read(document: &'a Document) -> Result<Self, Refusal> {
        let all = document.bundle.iter().chain([&document.certificate]);
        let certificates = all.enumerate().map(|(place, der)| {
            Certificate::from_der(der)
                .map_err(|error| format!("certificate {place} is malformed: {error}").into())
        });
        Ok(Self { document, certificates: certificates.collect::<Result<_, Refusal>>()? })
    }

    /// Checks that every certificate, the root included, is valid at `now`, in seconds since 1970.
    pub(super) fn valid_at(&self, now: u64) -> Result<(), Refusal> {
        for (place, certificate) in self.certificates.iter().enumerate() {
            let validity = certificate.tbs_certificate().validity();
            let (from, to) = (
                validity.not_before.to_unix_duration().as_secs(),
                validity.not_after.to_unix_duration().as_secs(),
            );
            if now < from {
                return Err(format!("certificate {place} is not yet valid at {now}: only from {from}").into());
            }
            if now > to {
                return Err(
                    format!("certificate {place} is no longer valid at {now}: only until {to}").into()
                );
            }
        }
        Ok(())
    }

    /// Checks that they are a chain from the root, which the caller has found to be pinned, to the signer.
    pub(super) fn check(&self, now: u64) -> Result<(), Refusal> {
        let last = self.certificates.len().saturating_sub(1);
        let mut issuer = None;
        for (place, certificate) in self.certificates.iter().enumerate() {
            let body = certificate.tbs_certificate();
            // The root has signed itself.
            if body.issuer() != issuer.unwrap_or(body.subject()) {
                return Err(format!("certificate {place} was not issued by the one before it").into());
            }
            issuer = Some(body.subject());
            // With one certificate of a name there is one path. webpki tries all, up to a hundred signatures.
            let earlier = self.certificates.iter().take(place);
            if earlier.map(|earlier| earlier.tbs_certificate().subject()).any(|name| name == body.subject()) {
                return Err(format!("certificate {place} has the name of an earlier one").into());
            }
            algorithms(certificate).map_err(|why| format!("certificate {place}: {why}"))?;
            let follow = last.saturating_sub(place);
            let usage = if follow == 0 { signer(certificate) } else { authority(certificate, follow) };
            usage.map_err(|why| format!("certificate {place}: {why}"))?;
        }
        self.path(now)
    }

    /// webpki's path validation.
    fn path(&self, now: u64) -> Result<(), Refusal> {
        let failed =
            |error: webpki::Error| Refusal::from(format!("the path to the root is invalid: {error:?}"));
        let certificates: Vec<_> =
            self.document.bundle.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (root, intermediates) = certificates.split_first().ok_or("there is no root")?;
        let anchors = [webpki::anchor_from_trusted_cert(root).map_err(failed)?];
        let signer = CertificateDer::from(self.document.certificate.as_slice());
        let signer = webpki::EndEntityCert::try_from(&signer).map_err(failed)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        // The signer has no extended key usage, so the required one has no effect.
        let usage = webpki::KeyUsage::client_auth();
        let path = signer
            .verify_for_usage(&[&Es384], &anchors, intermediates, now, usage, None, None)
            .map_err(failed)?;
        if path.intermediate_certificates().count() != intermediates.len() {
            return Err("not every certificate of the bundle is part of the path".into());
        }
        Ok(())
    }

    /// Verifies a signature of the signer's key over `message`: two numbers of 48 bytes, as COSE has them.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let signer = self.certificates.last().ok_or("there is no certificate")?;
        let key = signer.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| "the signer's key is not on P-384")?;
        let length = signature.len();
        let signature = Signature::from_slice(signature)
            .map_err(|_| format!("the signature is not one of ES384: {length} bytes"))?;
        key.verify(message, &signature).map_err(|_| "the signature was not made with the signer's key".into())
    }
}

/// Checks that a certificate is signed with ES384, and contains a key on P-384.
fn algorithms(certificate: &Certificate) -> Result<(), &'static str> {
    let body = certificate.tbs_certificate();
    let algorithm = certificate.signature_algorithm();
    if algorithm != body.signature() || algorithm.oid != ECDSA_SHA384 || algorithm.parameters.is_some() {
        return Err("it is not signed with ECDSA and SHA-384");
    }
    let key = body.subject_public_key_info().algorithm.to_der().unwrap_or_default();
    // webpki's identifier is the contents of the sequence that `key` is.
    if key.get(2..) != Some(&*alg_id::ECDSA_P384) {
        return Err("its key is not on P-384");
    }
    Ok(())
}

/// Checks that a certificate may issue certificates, `follow` of which follow it, the signer included.
fn authority(certificate: &Certificate, follow: usize) -> Result<(), &'static str> {
    let body = certificate.tbs_certificate();
    let Ok(Some((true, constraints))) = body.get_extension::<BasicConstraints>() else {
        return Err("it has no critical basic constraints");
    };
    if !constraints.ca {
        return Err("it is not an authority");
    }
    let authorities = follow.saturating_sub(1);
    if constraints.path_len_constraint.is_some_and(|most| authorities > usize::from(most)) {
        return Err("more authorities follow than its path length allows");
    }
    match body.get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) if usage.key_cert_sign() => Ok(()),
        _ => Err("its key may not sign certificates"),
    }
}

/// Checks that a certificate's key may sign documents, and that it is no authority.
fn signer(certificate: &Certificate) -> Result<(), &'static str> {
    let body = certificate.tbs_certificate();
    match body.get_extension::<BasicConstraints>() {
        Ok(None) => {}
        Ok(Some((_, constraints))) if !constraints.ca => {}
        _ => return Err("it signed the document, but is an authority"),
    }
    match body.get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) if usage.digital_signature() => Ok(()),
        _ => Err("its key may not sign documents"),
    }
}

impl SignatureVerificationAlgorithm for Es384 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P384
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA384
    }
}
