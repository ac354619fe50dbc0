//! No changed quote verifies.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Case, RECORDED};
use crate::tests::cases;

/// In the gate; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 32;
/// The length of the recorded quote without the zeros after it.
const LEN: usize = 4936;
/// The certificates, which are text: some changes have no effect, such as those of line ends and of the copy of the root.
const TEXT: core::ops::Range<usize> = 1258..LEN;

/// Changes of a quote, the first one before the certificates: bits of bytes that are inverted.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let more = proptest::collection::vec((0..LEN, 1..=u8::MAX), 0..3);
    ((0..TEXT.start, 1..=u8::MAX), more).prop_map(|(first, more)| [Vec::from([first]), more].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(CASES)) })]

    #[test]
    fn a_changed_quote_never_verifies_as_another_one(changes in changes()) {
        let mut case = Case::recorded("td10", RECORDED);
        let before = case.quote.clone();
        for (offset, bits) in changes {
            case.quote[offset] ^= bits;
        }
        prop_assume!(case.quote[..TEXT.start] != before[..TEXT.start]);
        prop_assert!(case.verify().is_err());
    }

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
