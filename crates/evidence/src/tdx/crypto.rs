//! The cryptography with which `dcap-qvl` verifies quotes and collateral.
//!
//! Invariant: the only signature is ECDSA with SHA-256 on P-256, the one that Intel uses; none other can be verified. The library's
//! own choices would add other signatures, or a second version of each hash.

use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::x509::X509CertBackend;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest as _, Sha256, Sha384};

/// The library's own readers of certificates and signatures, with the cryptography below.
#[derive(Debug)]
pub(super) struct Intel;

impl Config for Intel {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for Intel {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &Es256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Sha384::digest(data).into()
    }
}

/// ECDSA with SHA-256 on P-256. The key and the signature are in the form of certificates.
#[derive(Debug)]
struct Es256;

impl SignatureVerificationAlgorithm for Es256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer as _;

    /// A key of the test, and its public half as in a certificate.
    fn key(byte: u8) -> (SigningKey, Vec<u8>) {
        let key = SigningKey::from_slice(&[byte; 32]).unwrap();
        let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        (key, public)
    }

    #[test]
    fn a_signature_is_verified_for_its_key_and_message_only() {
        let ((key, public), (_, other)) = (key(1), key(2));
        let signature: Signature = key.sign(b"message");
        let der = signature.to_der();
        let verify = |key: &[u8], message: &[u8], signature: &[u8]| {
            Intel::sig_algo().verify_signature(key, message, signature)
        };
        verify(&public, b"message", der.as_bytes()).unwrap();
        verify(&public, b"Message", der.as_bytes()).unwrap_err();
        verify(&other, b"message", der.as_bytes()).unwrap_err();
        verify(&public, b"message", &signature.to_bytes()).unwrap_err();
        verify(&[4; 65], b"message", der.as_bytes()).unwrap_err();
        verify(&[], b"message", &[]).unwrap_err();
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-4, the examples for "abc".
        assert_eq!(Intel::sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Intel::sha384(b"abc")[..4], [0xcb, 0x00, 0x75, 0x3f]);
    }
}
