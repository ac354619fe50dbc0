//! An enclave that was verified.
//!
//! Invariant: there is one only by verifying its evidence for its key.

use cloister_evidence::Verified;
use cloister_evidence::nitro::Document;

/// An enclave that was verified, with the key that its evidence binds. There is one only by verifying an
/// [`Answer`](crate::Answer).
#[derive(Clone, Debug)]
pub struct Attested {
    document: Verified<Document>,
    public_key: Vec<u8>,
}

impl Attested {
    /// The enclave whose evidence, for this key, is that document.
    pub(crate) const fn new(document: Verified<Document>, public_key: Vec<u8>) -> Self {
        Self { document, public_key }
    }

    /// The document, with the verdict.
    #[must_use]
    pub const fn document(&self) -> &Verified<Document> {
        &self.document
    }

    /// The key of its attestation server, as `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
