//! Documents of real modules. `testdata/nitro/PROVENANCE.md` has their sources.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::eventlog::Log;

/// A recorded document.
struct Recorded {
    bytes: &'static [u8],
    sha256: &'static str,
    /// The seconds between which all of its certificates are valid.
    window: (u64, u64),
    /// The check that it fails, if any.
    fails: Option<&'static str>,
}

macro_rules! recorded {
    ($name:literal, $sha256:literal, $from:literal..=$to:literal, $fails:expr) => {
        Recorded {
            bytes: include_bytes!(concat!("../../../testdata/nitro/", $name, ".cose")),
            sha256: $sha256,
            window: ($from, $to),
            fails: $fails,
        }
    };
}

const RECORDED: [Recorded; 8] = [
    recorded!(
        "n1-production",
        "19b71700ef369a55ad201e09843c7cfcbaecd2a07917e77cafa42fb227d582b7",
        1_736_179_622..=1_736_190_425,
        None
    ),
    recorded!(
        "n2-debug",
        "883eaa6cbccb1a173608cc0382199c22ac724203a773e8daa3fedc6d5d7152b9",
        1_614_963_709..=1_614_974_509,
        Some("debug")
    ),
    recorded!(
        "n3-debug-user-data",
        "7d81da0d55c3a1f3380ed130ddc2fdf06c4e1e41bb51d066fa35f4ed754c32d1",
        1_731_619_466..=1_731_630_269,
        Some("debug")
    ),
    recorded!(
        "n4-register-16",
        "8e5652f3b009e62057c9ebe6237b804dc566708f8931f67d9fc2ccadaa293a9e",
        1_762_795_207..=1_762_806_010,
        None
    ),
    recorded!(
        "n5-registers-20-to-22",
        "8f790c488251b056df7e1f62cb27a1560abf5bdd87e2bf9c8d7ea3748df38d3c",
        1_734_707_279..=1_734_718_082,
        None
    ),
    recorded!(
        "n6-debug-nonce",
        "8056eefb696e0e5d178f9d6cb81f7ef0d4bb084cbac9507663b1a31d89e00385",
        1_725_911_349..=1_725_922_152,
        Some("debug")
    ),
    recorded!(
        "n7-bad-signature",
        "5f42eb915e451a2fbefc541e068d71a23243d19a32241cd84dc28b8e9123e874",
        1_721_767_881..=1_721_778_684,
        Some("signature")
    ),
    recorded!(
        "n8-production",
        "9fdc6d0c6ab6339ed63c54bb68a7a16fd4a9ead6b13dab69a1ce44497900213d",
        1_735_613_751..=1_735_624_554,
        None
    ),
];

fn at(recorded: &Recorded, now: u64) -> Vec<&'static str> {
    failures(verify(recorded.bytes, &Roots::aws(), now, &DOCUMENT_ONLY))
}

fn document(number: usize) -> Document {
    let recorded = &RECORDED[number - 1];
    verify(recorded.bytes, &Roots::aws(), recorded.window.1, &DOCUMENT_ONLY).unwrap().into_value()
}

#[test]
fn the_recorded_documents_are_those_of_the_list() {
    for recorded in &RECORDED {
        assert_eq!(hex::text(&Sha256::digest(recorded.bytes)), recorded.sha256);
    }
    let list = include_str!("../../../testdata/nitro/PROVENANCE.md");
    for recorded in &RECORDED {
        let (from, to) = recorded.window;
        assert!(
            list.contains(recorded.sha256) && list.contains(&format!("{from} to {to}")),
            "{}",
            recorded.sha256
        );
    }
}

#[test]
fn each_is_verified_from_the_first_to_the_last_second_of_its_window() {
    for recorded in &RECORDED {
        let (from, to) = recorded.window;
        let expected: Vec<_> = recorded.fails.into_iter().collect();
        assert_eq!(at(recorded, from), expected, "{}", recorded.sha256);
        assert_eq!(at(recorded, to), expected, "{}", recorded.sha256);
        assert_eq!(at(recorded, from - 1), ["validity"], "{}", recorded.sha256);
        assert_eq!(at(recorded, to + 1), ["validity"], "{}", recorded.sha256);
    }
}

#[test]
fn a_document_in_debug_mode_is_refused_although_pcr3_and_pcr4_are_set() {
    let debug = &RECORDED[1];
    let failure = failure(verify(debug.bytes, &Roots::aws(), debug.window.0, &DOCUMENT_ONLY));
    assert_eq!(failure, "debug: debug mode: PCR0 is all zeros");
}

#[test]
fn the_fields_are_read_as_they_were_recorded() {
    let first = document(1);
    assert_eq!((first.platform, first.timestamp), (Platform::Nitro, 1_736_179_625_472));
    assert_eq!(first.module_id, "i-0bee92034f3d60691-enc01943c5eaab3ad6a");
    assert_eq!(first.registers.keys().copied().collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    assert_eq!(
        (first.public_key.map(|key| key.len()), first.user_data, first.nonce),
        (Some(294), None, None)
    );
    // The fourth has a payload of indefinite length, an extended register, and user data that is empty, not missing.
    let fourth = document(4);
    assert_eq!(fourth.registers.keys().last(), Some(&16));
    assert_eq!((fourth.user_data, fourth.nonce), (Some(Vec::new()), None));
    let fifth: Vec<u16> = document(5).registers.into_keys().collect();
    assert_eq!(fifth[16..], [20, 21, 22]);
}

#[test]
fn registers_extended_by_other_software_do_not_pass_as_those_of_a_log() {
    let log = Log::booted();
    let required = Expectation { events: Events::Log(&log), ..DOCUMENT_ONLY };
    for (number, text) in [(1, "events: PCR16 is missing"), (4, "events: PCR16 is 28827566")] {
        let recorded = &RECORDED[number - 1];
        let failure = failure(verify(recorded.bytes, &Roots::aws(), recorded.window.0, &required));
        assert!(failure.starts_with(text), "{failure}");
    }
}

#[test]
fn no_recorded_document_is_accepted_under_another_root() {
    for recorded in &RECORDED {
        let now = recorded.window.0;
        assert_eq!(failures(verify(recorded.bytes, &Roots::default(), now, &DOCUMENT_ONLY)), ["root"]);
        let other = Roots::default().with_nitro([7; 32]).with_development(AWS_ROOT_G1);
        let virtual_too = Expectation { allow_virtual: true, ..DOCUMENT_ONLY };
        assert_eq!(failures(verify(recorded.bytes, &other, now, &virtual_too)), ["root"]);
        // A root that is trusted for both platforms would not tell them apart.
        assert_eq!(
            failures(verify(recorded.bytes, &other.with_nitro(AWS_ROOT_G1), now, &virtual_too)),
            ["root"]
        );
    }
}

#[test]
fn one_flipped_bit_in_each_part_is_refused_by_the_check_of_that_part() {
    let recorded = &RECORDED[0];
    let document = document(1);
    let flipped = |part: &[u8], place: usize| {
        let start = recorded.bytes.windows(part.len()).position(|bytes| bytes == part).unwrap();
        let mut bytes = recorded.bytes.to_vec();
        bytes[start + place] ^= 1;
        failures(verify(&bytes, &Roots::aws(), recorded.window.0, &DOCUMENT_ONLY))
    };
    assert_eq!(flipped(b"\xa1\x01\x38\x22", 3), ["header"]);
    for text in ["module_id", "digest", "SHA384", "timestamp", "pcrs", "cabundle", "nonce"] {
        assert_eq!(flipped(text.as_bytes(), 0), ["fields"], "{text}");
    }
    assert_eq!(flipped(document.module_id.as_bytes(), 5), ["signature"]);
    assert_eq!(flipped(&document.timestamp.to_be_bytes(), 7), ["signature"]);
    assert_eq!(flipped(&document.registers[&0], 20), ["signature"]);
    assert_eq!(flipped(&document.registers[&4], 47), ["signature"]);
    assert_eq!(flipped(&document.public_key.unwrap(), 100), ["signature"]);
    assert_eq!(flipped(&document.bundle[0], 200), ["root"]);
    for certificate in document.bundle.iter().skip(1).chain([&document.certificate]) {
        assert_eq!(flipped(certificate, certificate.len() - 10), ["chain"]);
    }
    assert_eq!(flipped(&recorded.bytes[recorded.bytes.len() - 96..], 50), ["signature"]);
}

#[test]
fn truncated_documents_and_trailing_bytes_are_refused() {
    let recorded = &RECORDED[0];
    let refused = |bytes: &[u8]| failures(verify(bytes, &Roots::aws(), recorded.window.0, &DOCUMENT_ONLY));
    for length in (0..recorded.bytes.len()).step_by(7) {
        assert_eq!(refused(&recorded.bytes[..length]), ["format"], "{length}");
    }
    assert_eq!(refused(&[recorded.bytes, b"\0"].concat()), ["format"]);
    // The tag of COSE_Sign1 changes nothing.
    assert_eq!(refused(&[b"\xd2", recorded.bytes].concat()), [""; 0]);
}
