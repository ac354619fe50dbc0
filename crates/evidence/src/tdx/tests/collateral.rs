//! Faulty collateral.

use alloc::string::String;

use cloister_samples::tdx::{Parts, file};
use x509_cert::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};

use super::super::collateral::Decoded;
use super::super::{Collateral, CollateralError, MAX_COLLATERAL};
use super::generated::{Build as _, GENERATED};
use super::{Case, RECORDED, recorded};

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

#[test]
fn anything_but_the_expected_json_is_refused() {
    let json = recorded("td10.collateral.json");
    for bytes in [b"".as_slice(), b"{}", b"[]", &json[..json.len() / 2], &[&json, b"1".as_slice()].concat()] {
        assert!(matches!(Collateral::from_json(bytes), Err(CollateralError::Json(_))));
    }
    let long = alloc::vec![b' '; MAX_COLLATERAL + 1];
    assert_eq!(Collateral::from_json(&long), Err(CollateralError::TooLong(MAX_COLLATERAL + 1)));
}

#[test]
fn a_certificate_chain_in_collateral_is_ignored() {
    let case = Case::recorded("td15ex", 1_791_421_786);
    assert_eq!(case.collateral.parts.pck_certificate_chain, None);
    let json = String::from_utf8(recorded("td15ex.collateral.json")).unwrap();
    assert!(json.contains("\"pck_certificate_chain\":"));
}

/// Texts may explain certificates (RFC 7468, section 2), and readers differ in what they skip.
#[test]
fn the_library_is_given_the_certificates_that_were_checked_and_no_other_text() {
    let mut parts = Parts::new(2);
    parts.chain = [b"The platform's:\n", parts.chain.as_slice()].concat();
    parts.signer_chain = parts.signer_chain.replace("-----BEGIN", "Another one:\n-----BEGIN");
    let case = parts.build();
    case.accept();
    let quote = super::Quote::parse(&case.quote).unwrap();
    let given = Decoded::read(&case.collateral, &quote).unwrap().for_library(&case.collateral).unwrap();
    assert_eq!(given.pck_certificate_chain, Some(text("pck-chain.pem")));
    assert_eq!(given.tcb_info_issuer_chain, text("signer-chain.pem"));
    assert_eq!(given.qe_identity_issuer_chain, text("signer-chain.pem"));
}

#[test]
fn every_part_has_dates_and_is_named_when_they_do_not_hold() {
    let build = |change: fn(&mut Parts)| {
        let mut parts = Parts::new(2);
        change(&mut parts);
        parts.build()
    };
    let mut case = build(|_| ());
    case.now = 1_796_083_200;
    case.refuse("dates", "TCB info: issued at 2027-01-01T00:00:00Z");
    case.now = 1_798_761_600;
    case.refuse("dates", "QE identity: issued at 2027-01-02T00:00:00Z");
    case.now = 1_801_353_601;
    case.refuse("dates", "TCB info: expired at 2027-01-31T00:00:00Z");
    // Lists and certificates from the future: the library does not look at the beginning of a list.
    let mut case = build(|parts| {
        parts.tcb_info = parts.tcb_info.replace("2027-01-01T", "2020-01-01T");
        parts.qe_identity = parts.qe_identity.replace("2027-01-02T", "2020-01-01T");
    });
    case.accept();
    case.now = 1_750_000_000;
    case.refuse("dates", "root revocation list: issued at 2026-");
    let mut case = build(|parts| {
        parts.tcb_info = parts.tcb_info.replace("2027-01-31T", "2050-01-31T");
        parts.qe_identity = parts.qe_identity.replace("2027-02-01T", "2050-01-31T");
    });
    case.now = 2_100_000_000;
    case.refuse("dates", "root revocation list: expired at 2033-");
}

/// Those of the chains' copies are a statement of the same key, but of another certificate.
#[test]
fn the_given_roots_own_dates_count() {
    let mut case = Parts::new(2).build();
    let until = b"331130101500Z";
    let place = case.root.windows(until.len()).position(|part| part == until).unwrap();
    case.root[place] = b'2';
    case.root[place + 1] = b'6';
    case.refuse("dates", "certificate of the root: expired at 2026-11-30T10:15:00Z");
}

#[test]
fn a_changed_copy_of_the_root_in_a_chain_is_refused() {
    let changed = |chain: &str| {
        let mut certificates = Certificate::load_pem_chain(chain.as_bytes()).unwrap();
        let mut root = certificates.pop().unwrap().to_der().unwrap();
        let until = b"331130101500Z";
        let place = root.windows(until.len()).position(|part| part == until).unwrap();
        root[place] = b'4';
        certificates.push(Certificate::from_der(&root).unwrap());
        certificates.iter().map(|part| part.to_pem(LineEnding::LF).unwrap()).collect::<String>()
    };
    let mut parts = Parts::new(2);
    parts.chain = changed(&text("pck-chain.pem")).into_bytes();
    parts.build().refuse("root", "quote: the root has not signed its certificate");
    let mut parts = Parts::new(2);
    parts.signer_chain = changed(&parts.signer_chain);
    parts.build().refuse("root", "TCB info: the root has not signed its certificate");
}

#[test]
fn malformed_dates_are_refused() {
    for date in
        ["2027-01-01", "2027-01-01T00:00:00+01:00", "2027-13-01T00:00:00Z", "1969-01-01T00:00:00Z", ""]
    {
        let mut parts = Parts::new(2);
        parts.tcb_info = parts.tcb_info.replace("2027-01-01T00:00:00Z", date);
        parts.build().refuse("collateral", "TCB info: malformed date");
    }
}

#[test]
fn collateral_for_another_purpose_is_refused() {
    let build = |from: &str, to: &str| {
        let mut parts = Parts::new(2);
        parts.tcb_info = parts.tcb_info.replace(from, to);
        parts.qe_identity = parts.qe_identity.replace(from, to);
        parts.build()
    };
    build("\"id\":\"TDX\"", "\"id\":\"SGX\"").refuse("collateral", "TCB info is for \"SGX\" in version 3");
    build("\"id\":\"TDX\",\"version\":3", "\"id\":\"TDX\",\"version\":4")
        .refuse("collateral", "in version 4, expected");
    build("TD_QE", "QE").refuse("collateral", "QE identity is for \"QE\", expected TD_QE");
    build("C0C06F000000", "C0C06F000001").refuse("signatures", "Fmspc mismatch");
    build("\"pceId\":\"0000\"", "\"pceId\":\"0001\"")
        .refuse("pce", "TCB info is for PCE 0001, the platform has 0000");
}

#[test]
fn a_duplicate_member_of_a_document_is_refused() {
    let mut parts = Parts::new(2);
    parts.tcb_info = parts.tcb_info.replace("\"tcbType\":0", "\"tcbType\":0,\"tcbType\":0");
    parts.build().refuse("collateral", "duplicate field");
}

#[test]
fn revoked_certificates_are_refused() {
    let mut parts = Parts::new(2);
    parts.pck_crl = file("pck-revoked.crl");
    parts.build().refuse("signatures", "CertRevoked");
    let mut parts = Parts::new(2);
    parts.root_crl = file("root-revoked-ca.crl");
    parts.build().refuse("signatures", "CertRevoked");
}

#[test]
fn a_list_by_another_authority_is_refused() {
    let mut parts = Parts::new(2);
    parts.pck_crl = file("root.crl");
    parts.build().refuse("signatures", "UnknownRevocationStatus");
    let mut parts = Parts::new(2);
    parts.root_crl = file("pck.crl");
    parts.build().refuse("signatures", "root CA CRL");
    let mut parts = Parts::new(2);
    *parts.pck_crl.last_mut().unwrap() ^= 1;
    parts.build().refuse("signatures", "");
}

#[test]
fn a_chain_in_another_order_or_of_another_length_is_refused() {
    let build = |chain: &str| {
        let mut parts = Parts::new(2);
        parts.chain = file(chain);
        parts.build()
    };
    build("pck-chain.pem").accept();
    build("pck-chain-reordered.pem")
        .refuse("names", "a certificate for \"Intel SGX PCK Platform CA\", expected one for");
    build("pck-chain-short.pem").refuse("names", "quote: 2 certificates, expected 3");
    build("pck-chain-impostor.pem").refuse("root", "although it has the root's name");
    build("signer-chain.pem").refuse("names", "quote: 2 certificates, expected 3");
    let mut parts = Parts::new(2);
    parts.chain = [file("pck-chain.pem"), file("root.der")].concat();
    parts.build().refuse("collateral", "quote: malformed certificates in PEM");
    parts.chain.clear();
    parts.build().refuse("names", "quote: 0 certificates, expected 3");
}

#[test]
fn a_signer_with_another_name_is_refused() {
    let mut parts = Parts::new(2);
    parts.signer_chain = text("misnamed-chain.pem");
    parts.build().refuse("names", "TCB info: a certificate for \"Intel SGX Something\"");
}

#[test]
fn collateral_under_another_root_is_refused() {
    let mut case = Case::recorded("td10", RECORDED);
    case.collateral = Parts::new(2).build().collateral;
    case.now = GENERATED;
    case.refuse("root", "TCB info: the certificates end in a key that is not the trusted root");
    let mut case = Parts::new(2).build();
    let intel = super::Root::INTEL;
    (case.root, case.key_sha256) = (intel.certificate.into(), intel.key_sha256);
    case.refuse("root", "quote: the certificates end in a key that is not the trusted root: SHA-256");
}

#[test]
fn names_do_not_replace_the_check_of_the_roots_key() {
    // The chain ends in the right root, but that root issued none of it: only signatures can tell.
    let mut parts = Parts::new(2);
    let chain = text("pck-chain.pem");
    let root = chain.rfind("-----BEGIN").unwrap();
    let recorded = recorded("td10.quote");
    let quote = super::Quote::parse(&recorded).unwrap();
    let intel = core::str::from_utf8(quote.certificates).unwrap();
    let end = intel.rfind("-----BEGIN").unwrap();
    parts.chain = [&intel.as_bytes()[..end], &chain.as_bytes()[root..]].concat();
    parts.build().refuse("signatures", "Failed to verify certificate chain");
}
