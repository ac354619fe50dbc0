//! An enclave that was verified.
//!
//! Invariant: there is one only by verifying its evidence for its key.

use crate::statement::Statement;

/// An enclave that was verified, with the key that its evidence binds. There is one only by verifying an
/// [`Answer`](crate::Answer).
#[derive(Clone, Debug)]
pub struct Attested {
    statement: Statement,
    public_key: Vec<u8>,
}

impl Attested {
    /// The enclave whose evidence, for this key, states that.
    pub(crate) const fn new(statement: Statement, public_key: Vec<u8>) -> Self {
        Self { statement, public_key }
    }

    /// What its evidence states, with the verdict.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The key of its attestation server, as `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
