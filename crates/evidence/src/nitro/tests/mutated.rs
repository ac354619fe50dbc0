//! Changed documents never verify as anything but what was signed.

use alloc::string::String;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::signer::{Certificate, Draft, NOW, chain, issue};
use super::*;
use crate::tests::changes::{cases, failed, never_verifies_as_another};

/// Changed documents per test, each with up to five signatures to verify; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 96;

const RECORDED: &[u8] = include_bytes!("../../../testdata/nitro/n1-production.cose");
const RECORDED_AT: u64 = 1_736_179_630;

fn config() -> Config {
    Config { cases: cases(CASES), failure_persistence: None, ..Config::default() }
}

/// What is signed in a document that verifies. The tag of `COSE_Sign1` is not, and may be added.
fn verified(bytes: &[u8], roots: &Roots, now: u64, expectation: &Expectation<'_>) -> Result<Vec<u8>, String> {
    let document = verify(bytes, roots, now, expectation);
    document.map(|_| Sign1::read(bytes).unwrap().to_be_signed()).map_err(|verdict| failed(&verdict))
}

#[test]
fn a_changed_document_of_nitro_never_verifies_as_another() {
    never_verifies_as_another("AWS Nitro document", CASES, RECORDED, |bytes| {
        verified(bytes, &Roots::aws(), RECORDED_AT, &DOCUMENT_ONLY)
    });
}

/// As `host-sleeve` makes them: the root has issued the certificate of the signer.
#[test]
fn a_changed_document_of_virtual_never_verifies_as_another() {
    let [root, .., signer] = chain();
    let signer = Certificate { issuer: root.subject, ..signer };
    let draft = Draft { certificates: issue(&[root, signer]), ..Draft::virtual_platform() };
    let roots = Roots::default().with_development(draft.root());
    let expectation = Expectation { allow_virtual: true, ..DOCUMENT_ONLY };
    never_verifies_as_another("virtual document", CASES, &draft.sign(), |bytes| {
        verified(bytes, &roots, NOW, &expectation)
    });
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_flipped_bit_is_always_refused(place: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = RECORDED.to_vec();
        bytes[place.index(RECORDED.len())] ^= 1 << bit;
        prop_assert!(verify(&bytes, &Roots::aws(), RECORDED_AT, &DOCUMENT_ONLY).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&bytes, &Roots::aws(), RECORDED_AT, &DOCUMENT_ONLY).is_err());
    }
}
