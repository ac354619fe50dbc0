//! What the tests of several platforms share.

extern crate std;

pub(crate) mod changes;

use alloc::vec::Vec;
use core::fmt;

use crate::verdict::{Outcome, Verdict, Verified};

/// A file below `testdata`.
pub(crate) fn read(folder: &str, name: &str) -> Vec<u8> {
    let path = alloc::format!("{}/testdata/{folder}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What was verified.
#[track_caller]
pub(crate) fn accepted<T: fmt::Debug>(result: Result<Verified<T>, Verdict>) -> Verified<T> {
    result.unwrap_or_else(|verdict| panic!("refused:\n{verdict}"))
}

/// The evidence was refused in `check`, with a text that contains `text`, and in no other check.
#[track_caller]
pub(crate) fn refused<T: fmt::Debug>(result: Result<Verified<T>, Verdict>, check: &str, text: &str) {
    let verdict = result.err().unwrap_or_else(|| panic!("accepted, expected a failure of {check}"));
    let failures: Vec<_> = (verdict.checks.iter())
        .filter_map(|check| match &check.outcome {
            Outcome::Fail(text) => Some((check.name, text)),
            _ => None,
        })
        .collect();
    let [(name, found)] = failures[..] else { panic!("not one failure:\n{verdict}") };
    assert_eq!(name, check, "{verdict}");
    assert!(found.contains(text), "{found:?} does not contain {text:?}");
}
