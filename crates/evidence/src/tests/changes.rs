//! Changes of valid evidence, and the property that evidence which was changed never verifies as anything but what was signed.
//!
//! Invariant: every input is a real change, and each is counted, as refused or as verified with the signed content. The second
//! is no finding: evidence has bytes that nothing signs (docs/evidence-hardware.md lists them).
//!
//! `CLOISTER_EVIDENCE_CASES` raises the number of inputs; with it, progress is printed (`scripts/fuzz --mutations`). The tests of
//! the client compile this file too.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::string::{String, ToString as _};
use std::time::Instant;
use std::vec::Vec;
use std::{env, eprintln, format};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::Verdict;

/// Lines of progress of each kind of evidence.
const LINES: u32 = 20;

/// How many inputs a property test tries: few by default, more if `CLOISTER_EVIDENCE_CASES` says so.
pub(crate) fn cases(default: u32) -> u32 {
    requested().unwrap_or(default)
}

fn requested() -> Option<u32> {
    env::var("CLOISTER_EVIDENCE_CASES").ok().map(|count| count.parse().unwrap())
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Change {
    /// Inverts bits of a byte.
    Invert(Index, u8),
    Truncate(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// Overwrites bytes with others of the same input.
    Copy(Index, Index, usize),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        prop_oneof![
            8 => (place(), 0_u8..8).prop_map(|(place, bit)| Self::Invert(place, 1 << bit)),
            4 => (place(), 1_u8..).prop_map(|(place, bits)| Self::Invert(place, bits)),
            1 => place().prop_map(Self::Truncate),
            1 => (place(), 1_usize..40).prop_map(|(place, length)| Self::Remove(place, length)),
            1 => (place(), vec(any::<u8>(), 1..40)).prop_map(|(place, bytes)| Self::Insert(place, bytes)),
            1 => (place(), place(), 1_usize..80).prop_map(|(from, to, length)| Self::Copy(from, to, length)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Invert(place, bits) => {
                let place = place.index(bytes.len());
                bytes[place] ^= bits;
            }
            Self::Truncate(place) => bytes.truncate(place.index(bytes.len())),
            Self::Remove(place, length) => {
                let start = place.index(bytes.len());
                bytes.drain(start..(start + length).min(bytes.len()));
            }
            Self::Insert(place, more) => {
                let start = place.index(bytes.len() + 1);
                bytes.splice(start..start, more.iter().copied());
            }
            Self::Copy(from, to, length) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part: Vec<u8> = bytes.iter().skip(from).take(*length).copied().collect();
                part.iter().zip(bytes.iter_mut().skip(to)).for_each(|(value, byte)| *byte = *value);
            }
        }
    }
}

/// Changes evidence of this `kind` at one to three places, and fails if it then verifies as something else. `verify` returns what is
/// proved by evidence that verifies, with every byte that no unsigned one may change; otherwise the name of the check that refused it.
pub(crate) fn never_verifies_as_another<T: Debug + PartialEq>(
    kind: &str,
    default: u32,
    original: &[u8],
    verify: impl Fn(&[u8]) -> Result<T, String>,
) {
    let signed = verify(original).unwrap_or_else(|check| panic!("{kind}: the original fails in {check}"));
    let cases = cases(default);
    let tally = RefCell::new(Tally { kind, cases, start: Instant::now(), refused: BTreeMap::new(), same: 0 });
    let config = Config { cases, max_global_rejects: cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(Change::any(), 1..4), |changes| {
        let mut bytes = original.to_vec();
        for change in &changes {
            change.apply(&mut bytes);
        }
        if bytes == original {
            return Err(TestCaseError::reject("the changes change nothing"));
        }
        let verified = verify(&bytes);
        match &verified {
            Ok(found) if *found != signed => Err(TestCaseError::fail(format!("it verifies as {found:?}"))),
            _ => {
                tally.borrow_mut().add(verified.err());
                Ok(())
            }
        }
    });
    if let Err(error) = result {
        panic!("{kind}: {error}");
    }
    tally.borrow().finish();
}

/// What became of the changed inputs of one kind.
struct Tally<'a> {
    kind: &'a str,
    cases: u32,
    start: Instant,
    /// By the check that refused them.
    refused: BTreeMap<String, u32>,
    /// Verified with the signed content.
    same: u32,
}

impl Tally<'_> {
    /// Counts an input that was refused by this check, or verified.
    fn add(&mut self, check: Option<String>) {
        match check {
            Some(check) => *self.refused.entry(check).or_default() += 1,
            None => self.same += 1,
        }
        let done = self.done();
        if requested().is_some() && done.is_multiple_of(self.cases.div_ceil(LINES)) && done < self.cases {
            let seconds = self.start.elapsed().as_secs();
            eprintln!("mutations: {}: {done} of {} after {seconds} s", self.kind, self.cases);
        }
    }

    fn done(&self) -> u32 {
        self.refused.values().sum::<u32>() + self.same
    }

    /// Prints the counts; `scripts/fuzz` adds them up.
    fn finish(&self) {
        if requested().is_none() {
            return;
        }
        let Self { kind, same, .. } = self;
        let (done, seconds) = (self.done(), self.start.elapsed().as_secs());
        let refused = done - same;
        let checks: Vec<String> =
            self.refused.iter().map(|(name, count)| format!("{name} {count}")).collect();
        eprintln!("mutations: {kind}: refused by {}", checks.join(", "));
        eprintln!(
            "mutations: {kind}: {done} done, {refused} refused, {same} with the signed content, {seconds} s"
        );
    }
}

/// The name of the first check that failed.
pub(crate) fn failed(verdict: &Verdict) -> String {
    verdict.failure().map_or("none", |check| check.name).to_string()
}
