//! Documents of AWS Nitro Enclaves, and of the development platform `virtual`, which have the same form.
//!
//! Invariant: a [`Document`] is verified only if every check of [`TABLE`] passed. Which platform a document is of is
//! stated in the signed document, and each platform has its own roots, so that neither can be mistaken for the other.
//!
//! docs/evidence.md specifies each check.

mod cbor;
mod chain;
mod checks;
mod cose;
mod document;
mod expectation;

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use cbor::Refusal;
use chain::Chain;
use cose::Sign1;
pub use document::{Document, Platform, VIRTUAL_PREFIX};
pub use expectation::{Binding, Events, Expectation, Freshness, Measurements, Nonce};

use crate::hex;
use crate::verdict::{Checklist, Verdict, Verified};

/// SHA-256 of AWS's root certificate "aws.nitro-enclaves" in DER (G1, valid until 2049).
pub const AWS_ROOT_G1: [u8; 32] = [
    0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31, 0x7e,
    0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
];

/// The checks of a verification, in their order.
pub const TABLE: [&str; 14] = [
    "format",
    "header",
    "fields",
    "platform",
    "root",
    "validity",
    "chain",
    "signature",
    "debug",
    "freshness",
    "nonce",
    "binding",
    "measurements",
    "events",
];

/// Trusted roots, each by the SHA-256 digest of its certificate in DER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    nitro: Vec<[u8; 32]>,
    development: Vec<[u8; 32]>,
}

impl Roots {
    /// AWS's root.
    #[must_use]
    pub fn aws() -> Self {
        Self::default().with_nitro(AWS_ROOT_G1)
    }

    /// Adds a root for AWS Nitro Enclaves.
    #[must_use]
    pub fn with_nitro(mut self, root: [u8; 32]) -> Self {
        self.nitro.push(root);
        self
    }

    /// Adds a root for the platform `virtual`, which [`Expectation::allow_virtual`] must allow in addition.
    #[must_use]
    pub fn with_development(mut self, root: [u8; 32]) -> Self {
        self.development.push(root);
        self
    }
}

/// Verifies a document at the time `now`, in seconds since 1970.
pub fn verify(
    bytes: &[u8],
    roots: &Roots,
    now: u64,
    expectation: &Expectation<'_>,
) -> Result<Verified<Document>, Verdict> {
    let envelope = Sign1::read(bytes);
    let document = envelope.as_ref().ok().map(|envelope| Document::read(envelope.payload));
    // What cannot be read is reported as the platform that this form is of.
    let platform = match &document {
        Some(Ok(document)) => document.platform,
        Some(Err(_)) | None => Platform::Nitro,
    };
    let mut checks = Checklist::new(platform.name(), &TABLE);
    let document = authentic(&mut checks, envelope, document, roots, now, expectation.allow_virtual);
    if let Some(document) = &document {
        checks::all(&mut checks, document, now, expectation);
    }
    checks.finish(document)
}

/// The checks that decide whether the document is what the platform signed. Each needs those before it.
fn authentic(
    checks: &mut Checklist,
    envelope: Result<Sign1<'_>, Refusal>,
    document: Option<Result<Document, Refusal>>,
    roots: &Roots,
    now: u64,
    allow_virtual: bool,
) -> Option<Document> {
    let envelope = checks.check("format", envelope, |_| "one COSE_Sign1 in CBOR".into())?;
    checks.check("header", envelope.header(), |()| "ES384 and nothing else".into())?;
    let document = checks.check("fields", document?, |document| {
        format!("{} with {} registers", document.module_id, document.registers.len()).into()
    })?;
    checks.check("platform", platform(&document, allow_virtual), |text| Cow::Borrowed(*text))?;
    checks.check("root", root(&document, roots), |digest| format!("SHA-256 {}", hex::text(digest)).into())?;
    let chain = Chain::read(&document);
    let chain = match chain {
        Ok(chain) => chain,
        Err(why) => checks.check("chain", Err(why), |_| "".into())?,
    };
    checks
        .check("validity", chain.valid_at(now), |()| format!("all certificates are valid at {now}").into())?;
    let count = document.bundle.len();
    checks.check("chain", chain.check(now), |()| {
        format!("{count} certificates from the root to the signer's").into()
    })?;
    let signature = chain.verify(&envelope.to_be_signed(), envelope.signature);
    checks.check("signature", signature, |()| "made with the signer's key".into())?;
    drop(chain);
    Some(document)
}

fn platform(document: &Document, allow_virtual: bool) -> Result<&'static str, &'static str> {
    match document.platform {
        Platform::Nitro => Ok("AWS Nitro Enclaves"),
        Platform::Virtual if allow_virtual => Ok("virtual: no hardware protects this enclave"),
        Platform::Virtual => {
            Err("virtual: no hardware protects this enclave, and the caller does not allow that")
        }
    }
}

/// Checks that the first certificate is a root for the document's platform.
fn root(document: &Document, roots: &Roots) -> Result<[u8; 32], Refusal> {
    let found = chain::fingerprint(document.bundle.first().ok_or("there is no root")?);
    let (own, other) = match document.platform {
        Platform::Nitro => (&roots.nitro, &roots.development),
        Platform::Virtual => (&roots.development, &roots.nitro),
    };
    let digest = hex::text(&found);
    match (own.contains(&found), other.contains(&found)) {
        (true, false) => Ok(found),
        (true, true) => Err(format!("the root is trusted for two platforms, SHA-256 {digest}").into()),
        (false, true) => Err(format!("the root is of another platform, SHA-256 {digest}").into()),
        (false, false) => Err(format!("the root is not trusted, SHA-256 {digest}").into()),
    }
}

#[cfg(test)]
mod tests;
