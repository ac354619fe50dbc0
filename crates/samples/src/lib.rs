//! Evidence of SEV-SNP and TDX under test keys, for the tests of those that verify it.
//!
//! Invariant: nothing is shared with the code that reads it, and no vendor's root accepts it: the certificates and the keys, known to
//! everyone, are those of `crates/evidence/testdata/*/synthetic`. Only tests depend on this crate; a fault in it is a failed test, so it
//! panics.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "only tests call it: what goes wrong here is a failed test"
)]

pub mod snp;
pub mod tdx;

use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

/// A time at which all certificates are valid, and so is the collateral of a sample: 2027-01-15, in seconds since 1970.
pub const TIME: u64 = 1_800_000_000;

/// A file of a platform's test data.
fn read(platform: &str, name: &str) -> Vec<u8> {
    let path = format!("{}/../evidence/testdata/{platform}/synthetic/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// SHA-256 of the key of a certificate in DER (`SubjectPublicKeyInfo`).
#[must_use]
pub fn key_sha256(certificate: &[u8]) -> [u8; 32] {
    let certificate = Certificate::from_der(certificate).unwrap();
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
    Sha256::digest(key).into()
}
