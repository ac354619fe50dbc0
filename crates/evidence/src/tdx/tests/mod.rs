//! Recorded and generated quotes, and what each test changes in them.

extern crate std;

mod collateral;
mod generated;
mod pcs;
mod policy;
mod property;
mod quote;
mod recorded;

use alloc::vec;
use alloc::vec::Vec;

use super::{Collateral, Guest, Measurements, Policy, Quote, Root, verify};
use crate::verdict::{Outcome, Verdict, Verified};

/// A time at which the recorded quote of TDX 1.0 verifies, 2025-06-24.
const RECORDED: u64 = 1_750_750_000;

/// A file below `testdata`.
fn read(folder: &str, name: &str) -> Vec<u8> {
    let path = alloc::format!("{}/testdata/{folder}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// How many inputs a property test tries: few by default, more if `CLOISTER_EVIDENCE_CASES` says so.
fn cases(default: u32) -> u32 {
    std::env::var("CLOISTER_EVIDENCE_CASES").map_or(default, |count| count.parse().unwrap())
}

fn recorded(name: &str) -> Vec<u8> {
    read("tdx/recorded", name)
}

/// A quote with everything that it is verified with.
#[derive(Clone)]
struct Case {
    quote: Vec<u8>,
    collateral: Collateral,
    root: Vec<u8>,
    key_sha256: [u8; 32],
    policy: Policy,
    now: u64,
}

impl Case {
    /// A recorded quote, with a policy that accepts it.
    fn recorded(name: &str, now: u64) -> Self {
        let quote = recorded(&alloc::format!("{name}.quote"));
        let collateral = Collateral::from_json(&recorded(&alloc::format!("{name}.collateral.json"))).unwrap();
        let Root { certificate, key_sha256 } = Root::INTEL;
        Self { policy: accepting(&quote), quote, collateral, root: certificate.into(), key_sha256, now }
    }

    fn verify(&self) -> Result<Verified<Guest>, Verdict> {
        let root = Root { certificate: &self.root, key_sha256: self.key_sha256 };
        verify(&self.quote, &self.collateral, &root, &self.policy, self.now)
    }

    #[track_caller]
    fn accept(&self) -> Verified<Guest> {
        self.verify().unwrap_or_else(|verdict| panic!("refused:\n{verdict}"))
    }

    /// Fails in `check`, with a text that contains `text`, and in no other check.
    #[track_caller]
    fn refuse(&self, check: &str, text: &str) {
        let verdict =
            self.verify().err().unwrap_or_else(|| panic!("accepted, expected a failure of {check}"));
        let failures: Vec<_> =
            verdict.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_))).collect();
        let names: Vec<_> = failures.iter().map(|check| check.name).collect();
        assert_eq!(names, [check], "{verdict}");
        let Outcome::Fail(found) = &failures[0].outcome else { panic!("{verdict}") };
        assert!(found.contains(text), "{found:?} does not contain {text:?}");
    }
}

fn accepting(quote: &[u8]) -> Policy {
    let Ok(Quote { report, .. }) = Quote::parse(quote) else { return Policy::new([0; 64], vec![]) };
    Policy::new(report.report_data, vec![Measurements { mr_td: report.mr_td, rtmr: report.rtmr.map(Some) }])
}
