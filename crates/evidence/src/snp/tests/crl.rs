//! Revocation lists.

use super::super::Product;
use super::{Case, generated, recorded};

fn genoa(list: &str) -> Case {
    let mut case = Case::generated(Product::Genoa, 5);
    case.crl = Some(generated(list));
    case
}

#[test]
fn a_list_without_the_chains_certificates_is_accepted() {
    genoa("genoa-empty.crl").accept();
    genoa("genoa-revoked-other.crl").accept();
}

#[test]
fn a_revoked_signing_key_is_refused() {
    genoa("genoa-revoked-ask.crl")
        .refuse("revocation", "ASK: revoked since 2026-12-01T00:00:00Z (serial number 010001)");
}

#[test]
fn a_list_by_another_key_of_the_same_name_is_refused() {
    genoa("genoa-wrong-key.crl").refuse("revocation", "revocation list: the signature is invalid");
}

#[test]
fn a_list_of_another_root_is_refused() {
    let mut case = Case::recorded();
    case.crl = Some(generated("genoa-empty.crl"));
    case.refuse("revocation", "not issued by the chain's root");
}

#[test]
fn a_changed_truncated_or_extended_list_is_refused() {
    let mut case = genoa("genoa-empty.crl");
    *case.crl.as_mut().unwrap().last_mut().unwrap() ^= 1;
    case.refuse("revocation", "the signature is invalid");
    let mut case = genoa("genoa-empty.crl");
    case.crl.as_mut().unwrap().pop();
    case.refuse("revocation", "malformed");
    let mut case = genoa("genoa-empty.crl");
    case.crl.as_mut().unwrap().push(0);
    case.refuse("revocation", "malformed");
    let mut case = genoa("genoa-empty.crl");
    case.crl.as_mut().unwrap().resize(65_537, 0);
    case.refuse("revocation", "more than the limit of 65536");
    // A certificate is no list.
    case.crl = Some(recorded("milan-ark.der"));
    case.refuse("revocation", "malformed");
}

#[test]
fn a_list_counts_between_its_dates_only() {
    use x509_cert::der::Decode;
    type List = x509_cert::crl::CertificateList<x509_cert::certificate::Rfc5280>;
    let list = generated("genoa-empty.crl");
    let fields = List::from_der(&list).unwrap().tbs_cert_list;
    let from = fields.this_update.to_unix_duration().as_secs();
    let until = fields.next_update.unwrap().to_unix_duration().as_secs();
    let chain = ["genoa-vcek.der", "genoa-ask.der", "genoa-ark.der"].map(generated);
    let chain = super::super::chain::Chain::parse(&[&chain[0], &chain[1], &chain[2]]).unwrap();
    let check = |now| super::super::crl::check(&list, &chain, now);
    assert!(check(from).is_ok() && check(until).is_ok());
    assert!(check(from - 1).unwrap_err().contains("not valid before"));
    assert!(check(until + 1).unwrap_err().contains("expired at"));
}

#[test]
fn a_policy_can_require_a_list() {
    let mut case = genoa("genoa-empty.crl");
    case.policy.require_crl = true;
    case.accept();
    case.crl = None;
    case.refuse("revocation", "the policy requires a revocation list");
}
