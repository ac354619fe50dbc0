//! Recorded quotes of real processors. `testdata/tdx/PROVENANCE.md` has their sources.

use alloc::vec::Vec;

use super::super::collateral::Decoded;
use super::super::{CHECKS, Quote, QuoteError, Root, TcbStatus};
use super::{Case, RECORDED, recorded};
use crate::verdict::Outcome;

/// The last second in which the collateral of the quote of TDX 1.0 is valid.
fn until(case: &Case) -> u64 {
    Decoded::read(&case.collateral, &Quote::parse(&case.quote).unwrap()).unwrap().valid_until()
}

#[test]
fn a_recorded_quote_of_version_4_verifies() {
    let case = Case::recorded("td10", RECORDED);
    let verified = case.accept();
    let guest = verified.value();
    assert_eq!(guest.status, TcbStatus::UpToDate);
    assert_eq!(guest.fmspc, [0xb0, 0xc0, 0x6f, 0, 0, 0]);
    assert_eq!((guest.evaluation, guest.advisories.as_slice()), (17, [].as_slice()));
    assert_eq!(guest.collateral_until, until(&case));
    assert!(guest.report.td15.is_none());
}

#[test]
fn a_recorded_quote_of_version_5_with_the_extended_body_verifies() {
    // The library alone accepts the first from 1,791,418,186 on, before its revocation list was issued.
    for now in [1_791_419_306, 1_791_421_786, 1_793_900_000] {
        let verified = Case::recorded("td15ex", now).accept();
        assert_eq!(verified.value().status, TcbStatus::UpToDate);
        assert!(verified.value().report.td15.is_some());
    }
}

#[test]
fn a_verdict_lists_every_check_in_the_order_of_the_table() {
    let verified = Case::recorded("td10", RECORDED).accept();
    let names: Vec<_> = verified.verdict().checks.iter().map(|check| check.name).collect();
    assert_eq!(names, CHECKS);
    let made =
        verified.verdict().checks.iter().filter(|check| matches!(check.outcome, Outcome::Pass(_))).count();
    // Not made: the four requirements that this policy leaves out.
    assert_eq!(made, CHECKS.len() - 4);
}

#[test]
fn a_platform_below_every_level_is_refused() {
    for now in [1_771_500_000, 1_773_900_000] {
        Case::recorded("td15-outdated", now).refuse("signatures", "No matching TCB level found");
    }
}

#[test]
fn a_quote_of_sgx_is_refused() {
    Case::recorded("sgx", 1_750_332_747).refuse("quote", "TEE type 0x0 is not TDX (0x81)");
}

#[test]
fn collateral_counts_between_its_dates_only_and_the_texts_differ() {
    let mut case = Case::recorded("td10", 1_750_329_147);
    case.accept();
    case.now -= 1;
    case.refuse("dates", "QE identity: issued at 2025-06-19T10:32:27Z, and the time is 2025-06-19T10:32:26Z: the clock is behind");
    case.now = until(&case);
    case.accept();
    case.now += 1;
    case.refuse("dates", "fetch new collateral");
}

#[test]
fn a_clock_at_the_time_of_the_quote_is_behind_collateral_that_was_fetched_later() {
    let mut case = Case::recorded("td10", RECORDED);
    case.now = 1_700_000_000;
    case.refuse("dates", "the clock is behind, or the collateral was fetched for a later time");
}

#[test]
fn collateral_of_another_platform_is_refused() {
    let mut case = Case::recorded("td15-outdated", 1_791_421_786);
    case.collateral = Case::recorded("td15ex", 0).collateral;
    case.refuse("signatures", "Fmspc mismatch");
}

#[test]
fn collateral_of_sgx_is_refused() {
    let mut case = Case::recorded("td10", RECORDED);
    case.collateral = Case::recorded("sgx", 0).collateral;
    case.refuse("collateral", "TCB info is for \"SGX\"");
}

#[test]
fn intels_test_root_is_refused_by_its_key_although_it_has_the_same_name() {
    // The quote contains its certificates in DER, which no service writes.
    let quote = recorded("intel-test-root.quote");
    assert_eq!(Quote::parse(&quote).unwrap_err(), QuoteError::AuthLength(0));
    // Its certificates in a quote that has the form of today.
    let mut case = Case::recorded("td10", RECORDED);
    case.quote = with_chain(&case.quote, &pem_of_test_root(&quote));
    case.refuse("root", "although it has the root's name: SHA-256");
    // The test root as the trusted one does not vouch for certificates of the real root, nor does a wrong pin.
    let mut case = Case::recorded("td10", RECORDED);
    case.root = recorded("intel-test-root.der");
    case.refuse("root", "the root's certificate does not contain its pinned key");
    let mut case = Case::recorded("td10", RECORDED);
    case.key_sha256[0] ^= 1;
    case.refuse("root", "the root's certificate does not contain its pinned key");
}

/// The certificates of the quote under the test root, in PEM and in order.
fn pem_of_test_root(quote: &[u8]) -> Vec<u8> {
    use x509_cert::der::{Decode, EncodePem, Reader, SliceReader};
    // After header, body and signature: a report, its signature, no authentication data, type and length.
    let mut reader = SliceReader::new(&quote[48 + 584 + 4 + 128 + 6 + 448 + 2 + 6..]).unwrap();
    let mut certificates = Vec::new();
    while !reader.is_finished() {
        certificates.push(x509_cert::Certificate::from_der(reader.tlv_bytes().unwrap()).unwrap());
    }
    certificates.reverse();
    let texts = certificates
        .iter()
        .map(|certificate| certificate.to_pem(x509_cert::der::pem::LineEnding::LF).unwrap());
    texts.collect::<alloc::string::String>().into_bytes()
}

/// A quote of version 4 with other certificates. Its signatures do not cover them.
pub(super) fn with_chain(quote: &[u8], chain: &[u8]) -> Vec<u8> {
    const START: usize = 48 + 584 + 4;
    let inner = 448 + 2 + 32;
    let outer = u32::try_from(inner + 6 + chain.len()).unwrap();
    let all = 128 + 6 + outer;
    let mut changed = Vec::from(&quote[..START - 4]);
    changed.extend(all.to_le_bytes());
    changed.extend(&quote[START..START + 128]);
    changed.extend(6_u16.to_le_bytes());
    changed.extend(outer.to_le_bytes());
    changed.extend(&quote[START + 128 + 6..START + 128 + 6 + inner]);
    changed.extend(5_u16.to_le_bytes());
    changed.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
    changed.extend(chain);
    changed
}

#[test]
fn the_built_in_root_is_intels() {
    use sha2::{Digest, Sha256};
    let hash = crate::hex::text(&Sha256::digest(Root::INTEL.certificate));
    assert_eq!(hash, "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3");
}

#[test]
fn one_changed_bit_in_any_field_is_refused() {
    // Header, each field of the body, signature, key, the quoting enclave's report, its signature, its data, the certificates.
    let offsets = [
        0, 2, 4, 8, 12, 28, 48, 64, 112, 160, 168, 176, 184, 232, 280, 328, 376, 424, 472, 520, 568, 631,
        632, 636, 700, 764, 766, 770, 900, 1090, 1122, 1154, 1218, 1220, 1252, 1254, 1300, 2000,
    ];
    for offset in offsets {
        let mut case = Case::recorded("td10", RECORDED);
        case.quote[offset] ^= 1;
        let verdict = case.verify().unwrap_err();
        let failure = verdict.failure().unwrap().name;
        assert!(
            ["quote", "debug", "collateral", "names", "root", "dates", "signatures"].contains(&failure),
            "{offset}: {verdict}"
        );
    }
}
