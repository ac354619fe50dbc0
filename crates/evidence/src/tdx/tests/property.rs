//! No changed quote verifies.

use proptest::prelude::*;

use super::super::verify;
use super::{Case, RECORDED};
use crate::tdx::Root;
use crate::tests::changes::{cases, failed, never_verifies_as_another};

/// In the gate; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 32;
/// The length of the recorded quote without the zeros after it.
const LEN: usize = 4936;
/// The certificates, which are text: some changes have no effect, such as those of line ends and of the copy of the root.
const TEXT: core::ops::Range<usize> = 1258..LEN;

#[test]
fn a_changed_quote_never_verifies_as_another() {
    let case = Case::recorded("td10", RECORDED);
    let root = Root { certificate: &case.root, key_sha256: case.key_sha256 };
    never_verifies_as_another("TDX quote", CASES, &case.quote, |quote| {
        let guest = verify(quote, &case.collateral, &root, &case.policy, case.now);
        guest
            .map(|guest| (guest.into_value(), quote[..TEXT.start].to_vec()))
            .map_err(|verdict| failed(&verdict))
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(CASES)) })]

    #[test]
    fn changed_certificates_never_change_what_is_verified(offset in TEXT, value in any::<u8>()) {
        let mut case = Case::recorded("td10", RECORDED);
        let expected = case.accept().into_value();
        case.quote[offset] = value;
        if let Ok(verified) = case.verify() {
            prop_assert_eq!(verified.value(), &expected);
        }
    }
}
