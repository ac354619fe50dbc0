//! Recorded evidence of real processors. `testdata/snp/PROVENANCE.md` has its sources.

use super::super::chain::Chain;
use super::super::{CHECKS, GuestPolicy, Product, Root, SigningKey, Tcb};
use super::{Case, RECORDED, accepting, recorded};
use crate::hex;
use crate::verdict::Outcome;

#[test]
fn a_recorded_report_of_milan_verifies() {
    let verified = Case::recorded().accept();
    let guest = verified.value();
    assert_eq!((guest.product, guest.key), (Product::Milan, SigningKey::Vcek));
    let report = &guest.report;
    assert_eq!((report.version, report.guest_svn, report.vmpl), (2, 0, 0));
    assert_eq!(report.policy, GuestPolicy(0x3_0000));
    assert_eq!(hex::text(&report.measurement[..8]), "7a1e5c266c0108db");
    assert_eq!(
        report.reported_tcb.read(Product::Milan),
        Tcb { fmc: 0, boot_loader: 3, tee: 0, snp: 8, microcode: 115 }
    );
    assert_eq!(hex::text(&report.chip_id[..4]), "d49554ec");
    assert_eq!(report.processor, None);
}

#[test]
fn a_verdict_lists_every_check_in_the_order_of_the_table() {
    let verified = Case::recorded().accept();
    let names: alloc::vec::Vec<_> = verified.verdict().checks.iter().map(|check| check.name).collect();
    assert_eq!(names, CHECKS);
    let made =
        verified.verdict().checks.iter().filter(|check| matches!(check.outcome, Outcome::Pass(_))).count();
    // Not made: revocation without a list, and the four requirements that this policy leaves out.
    assert_eq!(made, CHECKS.len() - 5);
}

#[test]
fn a_verdict_of_a_refused_report_lists_every_check_as_well() {
    let mut case = Case::recorded();
    case.now = 0;
    let verdict = case.verify().unwrap_err();
    let names: alloc::vec::Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, CHECKS);
    assert!(matches!(verdict.checks.last().unwrap().outcome, Outcome::NotApplicable(_)));
}

#[test]
fn a_recorded_report_of_a_guest_under_debug_is_refused_although_its_signature_holds() {
    let mut case = Case::recorded();
    case.report = recorded("milan-debug-report.bin");
    case.chain[0] = recorded("milan-debug-vcek.der");
    case.policy = accepting(&case.report, Product::Milan, Tcb::default());
    case.now = 1_800_000_000;
    case.refuse("debug", "the host can read and change the guest");
}

#[test]
fn the_certificates_are_valid_from_their_first_to_their_last_second() {
    let mut case = Case::recorded();
    for now in [1_680_549_823, 1_901_474_623] {
        case.now = now;
        case.accept();
    }
    case.now = 1_680_549_822;
    case.refuse("dates", "not valid before 2023-04-03T19:23:43Z");
    case.now = 1_901_474_624;
    case.refuse("dates", "expired at 2030-04-03T19:23:43Z");
}

/// Checks a chain without a report.
fn check_chain(parts: [&str; 3], now: u64) -> Result<Product, crate::bytes::Text> {
    let [leaf, intermediate, root] = parts.map(recorded);
    let chain = Chain::parse(&[&leaf, &intermediate, &root])?;
    let product = chain.product(&Root::AMD)?;
    chain.check_signatures()?;
    chain.check_issuers()?;
    chain.check_dates(now)?;
    chain.leaf.tcb(product)?;
    assert_eq!(chain.leaf.chip_id().map(<[u8]>::len), Some(product.chip_id_len()));
    assert!(product.has_name(&chain.leaf.product_name()?));
    Ok(product)
}

#[test]
fn recorded_certificates_of_each_product_verify() {
    let milan = check_chain(["milan-vcek.der", "milan-ask.der", "milan-ark.der"], RECORDED);
    assert_eq!(milan, Ok(Product::Milan));
    let genoa = check_chain(["genoa-vcek.der", "genoa-ask.der", "genoa-ark.der"], RECORDED);
    assert_eq!(genoa, Ok(Product::Genoa));
    // Its signature leaves out the default trailer field, which those above spell out.
    let turin = check_chain(["turin-vcek.der", "turin-ask.der", "turin-ark.der"], 1_750_000_000);
    assert_eq!(turin, Ok(Product::Turin));
}

#[test]
fn a_certificate_of_genoa_is_refused_in_a_chain_of_milan() {
    let error = check_chain(["genoa-vcek.der", "milan-ask.der", "milan-ark.der"], RECORDED).unwrap_err();
    assert!(error.contains("the signature is invalid"), "{error}");
}

#[test]
fn a_signing_key_of_genoa_is_refused_under_the_root_of_milan() {
    let error = check_chain(["genoa-vcek.der", "genoa-ask.der", "milan-ark.der"], RECORDED).unwrap_err();
    assert_eq!(error, "ASK: the signature is invalid");
}

#[test]
fn a_root_that_is_not_given_is_refused() {
    let mut case = Case::recorded();
    case.roots.retain(|root| root.product != Product::Milan);
    case.refuse("root", "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9");
}

#[test]
fn one_changed_bit_in_any_field_is_refused() {
    // One byte of each field of the report, of the padding between them and of the signature's numbers.
    let offsets = [
        0x00, 0x04, 0x08, 0x10, 0x20, 0x30, 0x34, 0x38, 0x40, 0x48, 0x4c, 0x50, 0x90, 0xc0, 0xe0, 0x110,
        0x140, 0x160, 0x180, 0x188, 0x1a0, 0x1e0, 0x1e8, 0x1ec, 0x1f0, 0x1f8, 0x29f, 0x2a0, 0x2d0, 0x2e8,
        0x318, 0x330, 0x49f,
    ];
    for offset in offsets {
        let mut case = Case::recorded();
        case.report[offset] ^= 1;
        let verdict = case.verify().unwrap_err();
        let failure = verdict.failure().unwrap().name;
        let expected: &[&str] = match offset {
            0x34 | 0x2d0 | 0x318 | 0x330 | 0x49f => &["report"],
            0x180 => &["certificate-tcb"],
            0x1a0 => &["chip-id"],
            _ => &["signature"],
        };
        assert!(expected.contains(&failure), "{offset:#x}: {verdict}");
    }
}
