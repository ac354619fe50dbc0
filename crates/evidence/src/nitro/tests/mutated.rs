//! Changed documents never verify as anything but what was signed.

extern crate std;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::signer::{Draft, NOW};
use super::*;

/// Changed documents per test, each with up to five signatures to verify; `CLOISTER_MUTATIONS` sets another number.
const MUTATIONS: u32 = 96;

const RECORDED: &[u8] = include_bytes!("../../../testdata/nitro/n1-production.cose");
const RECORDED_AT: u64 = 1_736_179_630;

fn mutations() -> Config {
    let count = std::env::var("CLOISTER_MUTATIONS").ok().and_then(|count| count.parse().ok());
    Config { cases: count.unwrap_or(MUTATIONS), ..Config::default() }
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0_u8..8).prop_map(|(place, bit)| Change::Flip(place, 1 << bit)),
        1 => any::<prop::sample::Index>().prop_map(Change::Truncate),
        1 => (any::<prop::sample::Index>(), 1_usize..40).prop_map(|(place, length)| Change::Remove(place, length)),
        1 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..80)
            .prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Flip(place, bits) => {
            let place = place.index(bytes.len());
            bytes[place] ^= bits;
        }
        Change::Truncate(place) => bytes.truncate(place.index(bytes.len())),
        Change::Remove(place, length) => {
            let start = place.index(bytes.len());
            bytes.drain(start..(start + length).min(bytes.len()));
        }
        Change::Insert(place, more) => {
            let start = place.index(bytes.len());
            bytes.splice(start..start, more.iter().copied());
        }
        Change::Copy(from, to, length) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let part: Vec<u8> = bytes.iter().skip(from).take(*length).copied().collect();
            part.iter().zip(bytes.iter_mut().skip(to)).for_each(|(value, byte)| *byte = *value);
        }
    }
}

/// Whether the changed bytes are refused, or verify as what was signed: the tag of `COSE_Sign1` may be added, for
/// example.
fn holds(original: &[u8], roots: &Roots, now: u64, changes: &[Change]) -> bool {
    let mut bytes = original.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        apply(&mut bytes, change);
    }
    let signed = Sign1::read(original).unwrap();
    match verify(&bytes, roots, now, &DOCUMENT_ONLY) {
        Err(verdict) => !verdict.accepted(),
        Ok(_) => Sign1::read(&bytes).unwrap().to_be_signed() == signed.to_be_signed(),
    }
}

proptest! {
    #![proptest_config(mutations())]

    #[test]
    fn a_changed_document_never_verifies_as_something_else(changes in prop::collection::vec(change(), 1..4)) {
        prop_assert!(holds(RECORDED, &Roots::aws(), RECORDED_AT, &changes));
    }

    #[test]
    fn a_changed_document_made_here_never_verifies_as_something_else(changes in prop::collection::vec(change(), 1..4)) {
        let draft = Draft::nitro();
        prop_assert!(holds(&draft.sign(), &Roots::default().with_nitro(draft.root()), NOW, &changes));
    }

    #[test]
    fn a_flipped_bit_is_always_refused(place: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = RECORDED.to_vec();
        apply(&mut bytes, &Change::Flip(place, 1 << bit));
        prop_assert!(verify(&bytes, &Roots::aws(), RECORDED_AT, &DOCUMENT_ONLY).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&bytes, &Roots::aws(), RECORDED_AT, &DOCUMENT_ONLY).is_err());
    }
}
