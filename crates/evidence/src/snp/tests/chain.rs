//! Faulty chains.

use super::super::{Product, SigningKey};
use super::{Case, generated, recorded};
use crate::verdict::Outcome;

/// A generated report of Genoa that verifies.
fn genoa() -> Case {
    Case::generated(Product::Genoa, 5)
}

#[track_caller]
fn refuse_leaf(name: &str, check: &str, text: &str) {
    let mut case = genoa();
    case.chain[0] = generated(name);
    case.refuse(check, text);
}

#[test]
fn a_chain_has_exactly_three_certificates() {
    let mut case = genoa();
    case.accept();
    let extra = case.chain[1].clone();
    case.chain.insert(1, extra);
    case.refuse("chain", "4 certificates, but a chain has three");
    case.chain.truncate(2);
    case.refuse("chain", "2 certificates, but a chain has three");
    case.chain.clear();
    case.refuse("chain", "0 certificates, but a chain has three");
}

#[test]
fn a_reordered_chain_is_refused() {
    let mut case = genoa();
    case.chain.reverse();
    case.refuse("root", "not a trusted root");
    let mut case = genoa();
    case.chain.swap(0, 1);
    case.refuse("chain-signatures", "the signature is invalid");
    let mut case = genoa();
    case.chain.swap(1, 2);
    case.refuse("root", "not a trusted root");
}

#[test]
fn a_chain_that_repeats_the_root_is_refused() {
    let mut case = genoa();
    case.chain[1] = case.chain[2].clone();
    case.refuse("chain-signatures", "VCEK or VLEK: the signature is invalid");
}

#[test]
fn a_truncated_certificate_and_one_with_bytes_after_it_are_refused() {
    for index in 0..3 {
        let mut case = genoa();
        case.chain[index].pop();
        case.refuse("chain", "malformed");
        let mut case = genoa();
        case.chain[index].push(0);
        case.refuse("chain", "malformed");
        let mut case = genoa();
        case.chain[index].clear();
        case.refuse("chain", "malformed");
    }
    let mut case = genoa();
    case.chain[0].resize(8193, 0);
    case.refuse("chain", "more than the limit of 8192");
}

#[test]
fn a_changed_signature_of_any_certificate_is_refused() {
    for (index, name) in ["VCEK or VLEK", "ASK", "ARK"].into_iter().enumerate() {
        let mut case = genoa();
        *case.chain[index].last_mut().unwrap() ^= 1;
        case.refuse("chain-signatures", &alloc::format!("{name}: the signature is invalid"));
    }
}

#[test]
fn a_chain_of_another_product_is_refused() {
    // The whole chain of Milan, with a report of Genoa.
    let mut case = genoa();
    case.chain = ["milan-vcek.der", "milan-ask.der", "milan-ark.der"].map(generated).into();
    case.refuse("product", "the report is from a processor of Genoa, but its chain is of Milan");
}

#[test]
fn a_certificate_for_another_product_is_refused() {
    refuse_leaf(
        "genoa-vcek-of-milan.der",
        "product",
        "the certificate is for \"Milan-B1\", but its chain is of Genoa",
    );
}

#[test]
fn amds_root_does_not_accept_a_chain_of_the_same_names() {
    let mut case = genoa();
    case.roots = super::Root::AMD.into();
    case.refuse("root", "not a trusted root");
}

#[test]
fn certificates_of_amd_do_not_vouch_for_a_generated_chain() {
    let mut case = genoa();
    case.roots = super::Root::AMD.into();
    case.chain[2] = recorded("genoa-ark.der");
    case.refuse("chain-signatures", "ASK: the signature is invalid");
}

#[test]
fn other_signature_algorithms_are_refused() {
    refuse_leaf("genoa-vcek-pkcs1.der", "chain-signatures", "not RSASSA-PSS");
    refuse_leaf("genoa-vcek-sha256.der", "chain-signatures", "parameters are not SHA-384");
    refuse_leaf("genoa-vcek-salt-32.der", "chain-signatures", "parameters are not SHA-384");
}

#[test]
fn an_issuers_key_of_another_length_is_refused() {
    let mut case = genoa();
    case.chain[0] = generated("genoa-vcek-by-2048.der");
    case.chain[1] = generated("genoa-ask-2048.der");
    case.refuse("chain-signatures", "not a 4096-bit RSA key");
}

#[test]
fn an_issuer_must_be_an_authority_and_a_leaf_must_not() {
    let mut case = genoa();
    case.chain[1] = generated("genoa-ask-no-authority.der");
    case.refuse("issuers", "ASK: not allowed to issue certificates");
    refuse_leaf("genoa-vcek-authority.der", "issuers", "a certificate authority");
}

#[test]
fn a_leaf_that_the_root_issued_is_refused() {
    refuse_leaf("genoa-vcek-by-ark.der", "chain-signatures", "VCEK or VLEK: the signature is invalid");
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    refuse_leaf(
        "genoa-vcek-critical.der",
        "chain",
        "critical extension 1.3.6.1.4.1.99999.1 is not supported",
    );
}

/// AMD may define extensions that restrict a certificate. The certificate's signature does not matter here.
#[test]
fn an_unknown_critical_extension_of_amds_is_refused() {
    let mut case = genoa();
    let other = [0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f, 1];
    let certificate = &mut case.chain[0];
    *certificate = generated("genoa-vcek-critical.der");
    let place = certificate.windows(9).position(|part| part == other).unwrap();
    certificate[place + 5..place + 9].copy_from_slice(&[0x9c, 0x78, 1, 9]);
    case.refuse("chain", "critical extension 1.3.6.1.4.1.3704.1.9 is not supported");
}

#[test]
fn a_key_of_another_curve_is_refused() {
    refuse_leaf("genoa-vcek-p256.der", "signature", "not one of ECDSA with P-384");
}

#[test]
fn a_certificate_without_a_component_of_the_tcb_version_is_refused() {
    refuse_leaf("genoa-vcek-without-boot-loader.der", "certificate-tcb", "has no boot loader version");
}

#[test]
fn a_report_with_another_tcb_version_than_its_certificate_is_refused() {
    let mut case = genoa();
    case.resign(0x180 + 7, &[73]);
    case.refuse("certificate-tcb", "for TCB 0700000000000e48, but the report states 0700000000000e49");
}

#[test]
fn a_report_of_another_chip_than_its_certificate_is_refused() {
    let mut case = genoa();
    case.resign(0x1a0, &[0xc2]);
    case.refuse("chip-id", "the report from c2c1");
    let mut case = Case::generated(Product::Turin, 5);
    case.accept();
    case.resign(0x1a0 + 8, &[1]);
    case.refuse("chip-id", "the certificate is for chip c1c1c1c1c1c1c1c1, the report from");
}

#[test]
fn a_masked_chip_is_not_compared_and_the_verdict_says_so() {
    let mut case = genoa();
    case.resign(0x1a0, &[0; 64]);
    let verified = case.accept();
    let check = verified.verdict().checks.iter().find(|check| check.name == "chip-id").unwrap();
    let Outcome::NotApplicable(text) = &check.outcome else { panic!("{check:?}") };
    assert!(text.starts_with("masked by the host; the certificate is for chip c1c1"), "{text}");
}

#[test]
fn a_vcek_certificate_must_name_a_chip_of_its_product() {
    refuse_leaf("genoa-vcek-without-chip.der", "chip-id", "names no chip");
    refuse_leaf("genoa-vcek-short-chip.der", "chip-id", "names a chip by 8 bytes, Genoa has 64");
}

#[test]
fn a_report_signed_by_a_vlek_verifies() {
    let mut case = Case::vlek();
    let verified = case.accept();
    assert_eq!(verified.value().key, SigningKey::Vlek);
    let check = verified.verdict().checks.iter().find(|check| check.name == "chip-id").unwrap();
    assert_eq!(check.outcome, Outcome::NotApplicable("a VLEK is not bound to a chip".into()));
    // MASK_CHIP_KEY concerns the VCEK only.
    case.resign(0x48, &[4 | 2]);
    case.accept();
}

#[test]
fn a_vcek_does_not_stand_in_for_a_vlek_and_the_other_way_round() {
    let mut case = Case::vlek();
    case.resign(0x48, &[0]);
    case.refuse("signing-key", "expected a certificate for SEV-VCEK, found \"SEV-VLEK\"");
    let mut case = Case::generated(Product::Milan, 2);
    case.resign(0x48, &[4]);
    case.refuse("signing-key", "expected a certificate for SEV-VLEK, found \"SEV-VCEK\"");
    let mut case = genoa();
    case.chain[0] = generated("genoa-vcek-named-vlek.der");
    case.resign(0x48, &[4]);
    case.refuse("signing-key", "expected a certificate for SEV-VLEK-Genoa, found \"SEV-Genoa\"");
}

#[test]
fn a_processor_that_is_not_known_is_accepted_by_its_certificates() {
    let mut case = genoa();
    case.resign(0x188, &[0x1b, 0x77, 0]);
    let verified = case.accept();
    let check = verified.verdict().checks.iter().find(|check| check.name == "product").unwrap();
    let Outcome::Pass(text) = &check.outcome else { panic!("{check:?}") };
    assert_eq!(
        text,
        "Genoa: family 0x1b, model 0x77, stepping 0, a processor that this release does not know"
    );
}

#[test]
fn the_signature_of_one_report_does_not_hold_for_another() {
    let mut case = genoa();
    let other = Case::generated(Product::Genoa, 3).report;
    case.report[0x2a0..].copy_from_slice(&other[0x2a0..]);
    case.refuse("signature", "the signature is invalid");
}
