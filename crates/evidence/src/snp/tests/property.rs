//! No changed report verifies.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::{Evidence, REPORT_LEN, verify};
use super::Case;
use crate::tests::cases;

/// In the gate; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 64;

/// Changes of a report: bits of bytes that are inverted.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((0..REPORT_LEN, 1..=u8::MAX), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(CASES)) })]

    #[test]
    fn a_changed_report_never_verifies(changes in changes()) {
        let case = Case::recorded();
        let mut report = case.report.clone();
        for (offset, bits) in changes {
            report[offset] ^= bits;
        }
        prop_assume!(report != case.report);
        let chain: Vec<&[u8]> = case.chain.iter().map(Vec::as_slice).collect();
        let evidence = Evidence { report: &report, chain: &chain, crl: None };
        prop_assert!(verify(&evidence, &case.roots, &case.policy, case.now).is_err());
    }

    #[test]
    fn a_changed_certificate_never_verifies(index in 0..3_usize, position in any::<prop::sample::Index>(), bit in 0..8) {
        let mut case = Case::recorded();
        let certificate = &mut case.chain[index];
        let position = position.index(certificate.len());
        certificate[position] ^= 1_u8 << bit;
        prop_assert!(case.verify().is_err());
    }
}
