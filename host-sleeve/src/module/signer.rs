//! One enclave's key, and its certificate from the development root.
//!
//! Invariant: the certificate is valid for a while longer when it signs, so that a document can still be verified when it arrives.
//! The key exists in memory only.

use std::path::Path;

use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

use super::certificate::Issued;
use super::key::new_key;
use super::root::DevelopmentRoot;
use crate::error::{Error, ErrorContext, Result};
use cloister_nsm::server;

/// How long before its end a certificate is renewed, in seconds: a verifier accepts a document for a minute or a few.
const RENEWED_BEFORE: u64 = 300;

/// A key with its certificates.
#[derive(Debug)]
pub(super) struct Signer {
    key: SigningKey,
    certificate: Issued,
    root: Vec<u8>,
}

impl Signer {
    /// A new key for the module `id`, with a certificate from the root below this state directory. `now` is in seconds since 1970.
    pub(super) fn new(id: &str, state: &Path, now: u64) -> Result<Self> {
        let root = DevelopmentRoot::open(state)?;
        let key = new_key().context(|| "cannot create a key".to_owned())?;
        let certificate = Issued::module(id, key.verifying_key(), &root.key, now);
        let certificate =
            certificate.map_err(|error| Error::internal("a certificate cannot be issued").because(error))?;
        Ok(Self { key, certificate, root: root.der().to_vec() })
    }

    /// Whether it can sign at `now`.
    pub(super) const fn is_valid(&self, now: u64) -> bool {
        self.certificate.is_valid(now, RENEWED_BEFORE)
    }

    /// Its certificate in DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate.der
    }

    /// The certificates from the root to the issuer of its own: the root alone.
    pub(super) fn bundle(&self) -> [&[u8]; 1] {
        [&self.root]
    }

    /// The document with this payload.
    pub(super) fn sign(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let signature: Signature = self.key.try_sign(&server::to_be_signed(payload)).ok()?;
        let signature = signature.to_bytes().as_slice().try_into().ok()?;
        Some(server::signed(payload, &signature))
    }
}
