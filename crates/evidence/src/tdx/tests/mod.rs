//! Recorded and generated quotes, and what each test changes in them.

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
use crate::tests::{accepted, read, refused};
use crate::verdict::{Verdict, Verified};

/// A time at which the recorded quote of TDX 1.0 verifies, 2025-06-24.
const RECORDED: u64 = 1_750_750_000;

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
        accepted(self.verify())
    }

    /// Fails in `check`, with a text that contains `text`, and in no other check.
    #[track_caller]
    fn refuse(&self, check: &str, text: &str) {
        refused(self.verify(), check, text);
    }
}

fn accepting(quote: &[u8]) -> Policy {
    let Ok(Quote { report, .. }) = Quote::parse(quote) else { return Policy::new([0; 64], vec![]) };
    Policy::new(report.report_data, vec![Measurements { mr_td: report.mr_td, rtmr: report.rtmr.map(Some) }])
}
