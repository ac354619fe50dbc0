//! Recorded documents, and documents signed here for what no recorded one covers.

mod mutated;
mod recorded;
mod refused;
mod required;
pub(crate) mod signer;

use super::*;

/// Checks the document alone, with room for a timestamp anywhere in the life of its certificate.
const DOCUMENT_ONLY: Expectation<'_> = Expectation {
    allow_virtual: false,
    freshness: Freshness { max_age: 3 * 3600, max_ahead: 3 * 3600 },
    nonce: Nonce::Unchecked,
    binding: Binding::Unchecked,
    measurements: Measurements::Unchecked,
    events: Events::Unchecked,
};

/// The names of the failed checks.
fn failures(result: Result<Verified<Document>, Verdict>) -> Vec<&'static str> {
    let verdict = match result {
        Ok(verified) => verified.verdict().clone(),
        Err(verdict) => verdict,
    };
    assert!(verdict.checks.iter().map(|check| check.name).eq(TABLE), "{verdict}");
    let failed = verdict.checks.iter().filter(|check| matches!(check.outcome, crate::Outcome::Fail(_)));
    failed.map(|check| check.name).collect()
}

/// The text of the only failed check, after its name.
fn failure(result: Result<Verified<Document>, Verdict>) -> alloc::string::String {
    let verdict = result.unwrap_err();
    let failed: Vec<_> = (verdict.checks.iter())
        .filter_map(|check| match &check.outcome {
            crate::Outcome::Fail(text) => Some(format!("{}: {text}", check.name)),
            _ => None,
        })
        .collect();
    assert_eq!(failed.len(), 1, "{verdict}");
    failed[0].clone()
}
