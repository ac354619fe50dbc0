//! Servers that are not the enclave that is required, and what the client reports.

use cloister_evidence::binding::certificate::Carried;
use rustls::{AlertDescription, CertificateError};
use x509_cert::der::asn1::ObjectIdentifier;

use super::signer::{NOW, SERIAL, extension};
use super::*;

/// The name of the only check that failed, after a sentence that names it.
fn failed(refusal: &Refusal) -> &'static str {
    let verdict = refusal.verdict().unwrap();
    let name = verdict.failure().unwrap().name;
    let text = refusal.to_string();
    assert!(text.starts_with(&format!("the evidence is refused: {name}: ")), "{text}");
    // What rustls prints of it is the same.
    assert!(rustls::Error::from(refusal.clone()).to_string().contains(&text));
    name
}

/// Refused for the form of its certificate.
fn malformed(presented: &Presented) -> String {
    let refusal = refusal(requirements(), presented);
    assert!(refusal.verdict().is_none());
    refusal.to_string()
}

fn carrier() -> Carrier {
    Carrier::of(&Draft::default())
}

#[test]
fn another_image_is_refused_with_its_register() {
    let other = [0, 1, 2].map(|register| (register, vec![0x0a; 48]));
    let other = Reference::new("other", other.into()).unwrap();
    let requirements = Requirements { measurements: vec![other], ..requirements() };
    let refusal = refusal(requirements, &Presented::of(&Draft::default()));
    assert_eq!(failed(&refusal), "measurements");
    assert!(refusal.to_string().contains("PCR0 is 0101"), "{refusal}");
}

#[test]
fn without_measurements_a_root_or_leave_every_enclave_is_refused() {
    let presented = Presented::of(&Draft::default());
    let none = Requirements { measurements: Vec::new(), ..requirements() };
    assert_eq!(failed(&refusal(none, &presented)), "measurements");
    let other = Requirements { roots: Roots::aws(), ..requirements() };
    assert_eq!(failed(&refusal(other, &presented)), "root");
    let hardware = Requirements { allow_virtual: false, ..requirements() };
    assert_eq!(failed(&refusal(hardware, &presented)), "platform");
}

#[test]
fn a_certificate_that_was_replayed_without_its_key_is_refused() {
    let presented = Presented { key: 2, ..Presented::new(carrier()) };
    let client = config(Verifier::of_evidence(requirements())).unwrap();
    let error = handshake(client, &presented).unwrap_err();
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature));
}

#[test]
fn evidence_in_another_certificate_is_refused() {
    let stolen = Presented { key: 2, ..Presented::new(Carrier { key: 2, ..carrier() }) };
    assert_eq!(failed(&refusal(requirements(), &stolen)), "binding");
    let mut serial = SERIAL;
    serial[15] ^= 1;
    let again = Presented::new(Carrier { serial: serial.to_vec(), ..carrier() });
    assert_eq!(failed(&refusal(requirements(), &again)), "nonce");
}

#[test]
fn evidence_that_is_too_old_or_of_the_future_is_refused() {
    for created in [NOW - 61, NOW + 31] {
        let presented = Presented::of(&Draft { created, ..Draft::default() });
        assert_eq!(failed(&refusal(requirements(), &presented)), "freshness", "{created}");
    }
    let freshness = Freshness { max_age: 10, ..Freshness::default() };
    let presented = Presented::of(&Draft { created: NOW - 11, ..Draft::default() });
    let strict = Requirements { freshness, ..requirements() };
    assert_eq!(failed(&refusal(strict, &presented)), "freshness");
}

#[test]
fn a_damaged_document_is_refused() {
    let mut evidence = Draft::default().sign();
    *evidence.last_mut().unwrap() ^= 1;
    let carried = Carried { platform: "virtual".into(), evidence };
    let damaged = Carrier { extensions: vec![extension(&carried.encode().unwrap())], ..carrier() };
    assert_eq!(failed(&refusal(requirements(), &Presented::new(damaged))), "signature");
}

#[test]
fn a_certificate_without_evidence_is_refused() {
    let with = |extensions| malformed(&Presented::new(Carrier { extensions, ..carrier() }));
    let other = x509_cert::ext::Extension {
        extn_id: ObjectIdentifier::new_unwrap("1.2.3.4"),
        ..carrier().extensions.remove(0)
    };
    for extensions in [vec![], vec![other.clone()], vec![other.clone(), other.clone()]] {
        assert!(with(extensions).ends_with("it contains no evidence"));
    }
    let both = with([carrier().extensions, vec![other]].concat());
    assert!(both.ends_with("it has other extensions than the one with evidence"), "{both}");
    let twice = with([carrier().extensions, carrier().extensions].concat());
    assert!(twice.ends_with("it has other extensions than the one with evidence"), "{twice}");
}

#[test]
fn a_critical_extension_is_refused() {
    let mut critical = carrier();
    critical.extensions[0].critical = true;
    assert!(malformed(&Presented::new(critical)).ends_with("the extension with evidence is critical"));
}

#[test]
fn bytes_after_the_extensions_value_or_the_certificate_are_refused() {
    let value = [carrier().extensions[0].extn_value.as_bytes(), b"\0"].concat();
    let trailing = Carrier { extensions: vec![extension(&value)], ..carrier() };
    let text = malformed(&Presented::new(trailing));
    assert!(text.ends_with("it is not the DER of one OCTET STRING"), "{text}");
    let mut presented = Presented::new(carrier());
    presented.certificate.push(0);
    assert!(malformed(&presented).ends_with("it is not X.509 in DER"));
}

#[test]
fn a_serial_number_of_another_form_is_refused() {
    for serial in [vec![0x55; 15], vec![0x55; 17], vec![0x3f; 16]] {
        let presented = Presented::new(Carrier { serial, ..carrier() });
        assert!(malformed(&presented).ends_with("its serial number is not a nonce of 16 bytes"));
    }
}

#[test]
fn another_platform_and_a_wrong_statement_of_the_platform_are_refused() {
    let stated = |platform: &str| {
        let carried = Carried { platform: platform.into(), evidence: Draft::default().sign() };
        Presented::new(Carrier { extensions: vec![extension(&carried.encode().unwrap())], ..carrier() })
    };
    for other in ["tdx", "snp", "other"] {
        let expected = format!("the requirements accept no evidence of the platform `{other}`");
        assert_eq!(malformed(&stated(other)), expected);
    }
    assert!(malformed(&stated("\x1b[2Jother")).ends_with("platform `[2Jother`"));
    assert!(malformed(&stated("nitro")).ends_with("its evidence is of another platform than it states"));
}

#[test]
fn tls_1_2_is_refused() {
    let presented = Presented::of(&Draft::default()).over_tls12();
    let client = config(Verifier::of_evidence(requirements())).unwrap();
    let error = handshake(client, &presented).unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));
}
