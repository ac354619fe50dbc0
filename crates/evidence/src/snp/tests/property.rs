//! No changed report verifies.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::{Evidence, verify};
use super::Case;
use crate::tests::changes::{cases, failed, never_verifies_as_another};

/// In the gate; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 64;
/// Bytes of a report that are signed.
const SIGNED: usize = 0x2a0;

#[test]
fn a_changed_report_never_verifies_as_another() {
    let case = Case::recorded();
    let chain: Vec<&[u8]> = case.chain.iter().map(Vec::as_slice).collect();
    never_verifies_as_another("SEV-SNP report", CASES, &case.report, |report| {
        let evidence = Evidence { report, chain: &chain, crl: None };
        let guest = verify(&evidence, &case.roots, &case.policy, case.now);
        guest.map(|guest| (guest.into_value(), report[..SIGNED].to_vec())).map_err(|verdict| failed(&verdict))
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(CASES)) })]

    #[test]
    fn a_changed_certificate_never_verifies(index in 0..3_usize, position in any::<prop::sample::Index>(), bit in 0..8) {
        let mut case = Case::recorded();
        let certificate = &mut case.chain[index];
        let position = position.index(certificate.len());
        certificate[position] ^= 1_u8 << bit;
        prop_assert!(case.verify().is_err());
    }
}
