//! Documents with one thing wrong, each refused by the check that is for it.

use alloc::vec;

use super::signer::{
    Authority, Certificate, DIGITAL_SIGNATURE, Draft, ES256, FROM, NOW, P256_KEY, TO, chain, issue, key,
};
use super::*;

fn at(draft: &Draft, now: u64) -> Vec<&'static str> {
    failures(verify(&draft.sign(), &Roots::default().with_nitro(draft.root()), now, &DOCUMENT_ONLY))
}

fn refused(draft: &Draft) -> Vec<&'static str> {
    at(draft, NOW)
}

fn why(draft: &Draft) -> alloc::string::String {
    failure(verify(&draft.sign(), &Roots::default().with_nitro(draft.root()), NOW, &DOCUMENT_ONLY))
}

fn with(change: impl FnOnce(&mut Draft)) -> Draft {
    let mut draft = Draft::nitro();
    change(&mut draft);
    draft
}

fn with_chain(change: impl FnOnce(&mut [Certificate; 5])) -> Draft {
    let mut chain = chain();
    change(&mut chain);
    with(|draft| draft.certificates = issue(&chain))
}

#[test]
fn a_document_made_here_is_accepted() {
    assert_eq!(refused(&Draft::nitro()), [""; 0]);
}

#[test]
fn every_field_has_its_limits() {
    let good = |change: fn(&mut Draft)| assert_eq!(refused(&with(change)), [""; 0]);
    good(|draft| draft.user_data = Some(vec![0; 512]));
    good(|draft| draft.nonce = Some(vec![0; 512]));
    good(|draft| draft.public_key = Some(vec![0; 1024]));
    good(|draft| draft.user_data = Some(Vec::new()));
    good(|draft| draft.set(31, &[1; 64]));
    good(|draft| draft.module_id = "i".repeat(256));

    let bad = |change: fn(&mut Draft), text: &str| assert_eq!(why(&with(change)), format!("fields: {text}"));
    bad(|draft| draft.user_data = Some(vec![0; 513]), "user_data has 513 bytes, the limits are 0 and 512");
    bad(|draft| draft.nonce = Some(vec![0; 513]), "nonce has 513 bytes, the limits are 0 and 512");
    bad(
        |draft| draft.public_key = Some(vec![0; 1025]),
        "public_key has 1025 bytes, the limits are 1 and 1024",
    );
    bad(|draft| draft.public_key = Some(Vec::new()), "public_key has 0 bytes, the limits are 1 and 1024");
    bad(|draft| draft.digest = "SHA256", "digest is not SHA384");
    bad(|draft| draft.timestamp = 0, "timestamp is zero");
    bad(|draft| draft.module_id.clear(), "module_id is not 1 to 256 printable letters");
    bad(|draft| draft.module_id = "i".repeat(257), "module_id is not 1 to 256 printable letters");
    bad(|draft| draft.module_id = "i-\u{1b}[31m".into(), "module_id is not 1 to 256 printable letters");
    bad(|draft| draft.registers.clear(), "pcrs is empty");
    bad(|draft| draft.set(32, &[1; 48]), "pcrs has a key that is not 0 to 31");
    bad(|draft| draft.set(16, &[1; 47]), "PCR16 is not 32, 48 or 64 bytes");
    bad(|draft| draft.certificates[1] = vec![0; 1025], "a certificate of cabundle is not 1 to 1024 bytes");
    bad(|draft| draft.certificates[1].clear(), "a certificate of cabundle is not 1 to 1024 bytes");
    bad(|draft| draft.certificates[4].clear(), "certificate is not 1 to 1024 bytes");
    bad(|draft| draft.certificates.resize(9, vec![0]), "cabundle has 8 certificates, the limits are 1 and 7");
}

#[test]
fn a_field_that_is_unknown_missing_or_there_twice_is_refused() {
    let further = |entry: &[u8]| with(|draft| draft.further = (1, entry.to_vec()));
    let unknown = why(&further(b"\x65debug\xf4"));
    assert_eq!(unknown, "fields: the payload has a field that is not in the specification");
    assert_eq!(why(&further(b"\x01\x02")), "fields: the payload has a field whose name is not text");
    assert_eq!(why(&further(b"\x65nonce\x41a")), "fields: its CBOR has the same key twice in one map");
    assert_eq!(why(&with(|draft| draft.trailing = vec![0])), "fields: 1 bytes follow its CBOR");
    let twice = with(|draft| draft.registers.push((0, vec![1; 48])));
    assert_eq!(why(&twice), "fields: its CBOR has the same key twice in one map");

    let draft = Draft::nitro();
    let roots = Roots::default().with_nitro(draft.root());
    let payloads: [(&[u8], &str); 4] = [
        (b"\xa0", "digest is not SHA384"),
        (b"\xa1\x66digest\x66SHA384", "module_id is missing"),
        (b"\x80", "the payload is not a map"),
        (b"", "its CBOR is truncated"),
    ];
    for (payload, text) in payloads {
        let refused = verify(&draft.sign_payload(payload), &roots, NOW, &DOCUMENT_ONLY);
        assert_eq!(failure(refused), format!("fields: {text}"));
    }
}

/// A value of another type is not entered: what it contains must not be read as fields.
#[test]
fn a_digest_that_is_not_text_is_refused() {
    let draft = Draft::nitro();
    let payload = draft.payload();
    let digest = b"\x66digest\x66SHA384";
    let place = payload.windows(digest.len()).position(|part| part == digest).unwrap();
    let (before, after) = (&payload[..place], &payload[place + digest.len()..]);
    let values: [&[u8]; 4] = [
        b"\x66digest\x4e\x66digest\x66SHA384",
        b"\x66digest\x81\x66SHA384",
        b"\x66digest\x46SHA384",
        b"\x66digest\xf6",
    ];
    for value in values {
        let payload = [before, value, after].concat();
        let roots = Roots::default().with_nitro(draft.root());
        let refused = failures(verify(&draft.sign_payload(&payload), &roots, NOW, &DOCUMENT_ONLY));
        assert_eq!(refused, ["fields"], "{value:02x?}");
    }
}

#[test]
fn a_signed_header_other_than_es384_alone_is_refused() {
    // ES256, no algorithm, a critical header, a key ID.
    for protected in [
        &b"\xa1\x01\x26"[..],
        b"\xa0",
        b"",
        b"\xa2\x01\x38\x22\x02\x81\x18\x2a",
        b"\xa2\x01\x38\x22\x04\x41k",
    ] {
        assert_eq!(
            refused(&with(|draft| draft.protected = protected.to_vec())),
            ["header"],
            "{protected:02x?}"
        );
    }
    assert_eq!(refused(&with(|draft| draft.unprotected = b"\xa1\x04\x41k".to_vec())), ["header"]);
}

/// What QEMU's `virtio-nsm` returns: algorithm -1, and zeros in the place of certificates and signature.
#[test]
fn the_unsigned_documents_of_qemus_machine_are_refused_at_the_header() {
    let draft = with(|draft| {
        draft.module_id = "i-234-enc5678".into();
        draft.protected = b"\xa1\x01\x20".to_vec();
        draft.certificates = vec![vec![0; 64]; 2];
    });
    let bytes = draft.envelope(&draft.payload(), &[0; 64]);
    let refused = failure(verify(&bytes, &Roots::aws(), NOW, &DOCUMENT_ONLY));
    assert_eq!(refused, "header: the algorithm is -1, not ES384 (-35)");
}

/// Nothing in a document is authentic when its path is looked for: a sender must not choose how long that takes.
#[test]
fn two_certificates_of_one_name_are_refused_before_a_path_is_looked_for() {
    let draft = with_chain(|chain| {
        for certificate in &mut chain[..4] {
            (certificate.subject, certificate.issuer) = ("root", "root");
        }
        chain[4].issuer = "root";
    });
    assert_eq!(why(&draft), "chain: certificate 1 has the name of an earlier one");
    let draft = with_chain(|chain| chain[4].subject = "zone");
    assert_eq!(why(&draft), "chain: certificate 4 has the name of an earlier one");
}

#[test]
fn a_document_is_refused_outside_the_validity_of_any_of_its_certificates() {
    let draft = Draft::nitro();
    assert_eq!((at(&draft, FROM), at(&draft, TO)), (vec![], vec![]));
    assert_eq!((at(&draft, FROM - 1), at(&draft, TO + 1)), (vec!["validity"], vec!["validity"]));
    for place in 0..5 {
        let expired = with_chain(|chain| chain[place].validity = ["200101000000Z", "251231235959Z"]);
        assert_eq!(refused(&expired), ["validity"], "{place}");
        let future = with_chain(|chain| chain[place].validity = ["260101000102Z", "491231235959Z"]);
        assert_eq!(refused(&future), ["validity"], "{place}");
    }
    assert_eq!((at(&draft, 0), at(&draft, u64::MAX)), (vec!["validity"], vec!["validity"]));
}

#[test]
fn certificates_in_another_order_or_number_are_refused() {
    let reordered = [[0, 2, 1, 3], [0, 3, 2, 1], [0, 1, 3, 2]];
    for order in reordered {
        let draft = with(|draft| {
            let certificates = draft.certificates.clone();
            for (place, from) in order.into_iter().enumerate() {
                draft.certificates[place] = certificates[from].clone();
            }
        });
        assert_eq!(refused(&draft), ["chain"], "{order:?}");
    }
    // Without one, with one twice, and a root that signed the document itself.
    for place in 1..4 {
        assert_eq!(refused(&with(|draft| drop(draft.certificates.remove(place)))), ["chain"], "{place}");
        let twice = with(|draft| draft.certificates.insert(place, draft.certificates[place].clone()));
        assert_eq!(refused(&twice), ["chain"], "{place}");
    }
    assert_eq!(refused(&with(|draft| drop(draft.certificates.drain(1..4)))), ["chain"]);
    let reversed = with(|draft| draft.certificates[..4].reverse());
    assert_eq!(refused(&reversed), ["chain"]);
    let root_last = failures(verify(
        &reversed.sign(),
        &Roots::default().with_nitro(Draft::nitro().root()),
        NOW,
        &DOCUMENT_ONLY,
    ));
    assert_eq!(root_last, ["root"]);
    let malformed = with(|draft| draft.certificates[2].truncate(300));
    assert!(why(&malformed).starts_with("chain: certificate 2 is malformed"));
    let trailing = with(|draft| draft.certificates[2].push(0));
    assert!(why(&trailing).starts_with("chain: certificate 2 is malformed"));
}

#[test]
fn certificates_that_may_not_do_what_they_did_are_refused() {
    let bad = |change: fn(&mut [Certificate; 5]), text: &str| {
        assert_eq!(why(&with_chain(change)), format!("chain: certificate {text}"));
    };
    bad(|chain| chain[2].authority = Authority::No, "2: it is not an authority");
    bad(|chain| chain[2].usage = DIGITAL_SIGNATURE, "2: its key may not sign certificates");
    bad(|chain| chain[2].usage = 0, "2: its key may not sign certificates");
    bad(
        |chain| chain[1].authority = Authority::Most(1),
        "1: more authorities follow than its path length allows",
    );
    bad(
        |chain| chain[0].authority = Authority::Most(2),
        "0: more authorities follow than its path length allows",
    );
    bad(|chain| chain[4].authority = Authority::Any, "4: it signed the document, but is an authority");
    bad(|chain| chain[4].usage = signer::CERTIFICATE_SIGN, "4: its key may not sign documents");
    bad(|chain| chain[4].usage = 0, "4: its key may not sign documents");
    bad(|chain| chain[3].algorithm = ES256, "3: it is not signed with ECDSA and SHA-384");
    bad(|chain| chain[3].key_algorithm = P256_KEY, "3: its key is not on P-384");
    for place in 1..5 {
        let unknown = why(&with_chain(|chain| chain[place].unknown = true));
        assert!(unknown.contains("UnsupportedCriticalExtension"), "{unknown}");
    }
}

#[test]
fn a_certificate_signed_with_another_key_is_refused() {
    for place in 1..5 {
        let draft = with(|draft| draft.certificates[place] = chain()[place].issue(9));
        assert!(why(&draft).contains("InvalidSignatureForPublicKey"), "{place}");
    }
    // The same names under another root.
    let mut chain = chain();
    chain[0].key = 9;
    let other = with(|draft| draft.certificates = issue(&chain));
    let refused =
        verify(&other.sign(), &Roots::default().with_nitro(Draft::nitro().root()), NOW, &DOCUMENT_ONLY);
    assert_eq!(failures(refused), ["root"]);
}

#[test]
fn a_signature_by_another_key_or_over_something_else_is_refused() {
    use p384::ecdsa::Signature;
    use p384::ecdsa::signature::Signer as _;

    let draft = Draft::nitro();
    let roots = Roots::default().with_nitro(draft.root());
    let (payload, message) = (draft.payload(), cose::to_be_signed(&draft.protected, &draft.payload()));
    let refused =
        |signature: &[u8]| failure(verify(&draft.envelope(&payload, signature), &roots, NOW, &DOCUMENT_ONLY));
    let by_another: Signature = key(4).sign(&message);
    assert_eq!(
        refused(&by_another.to_bytes()),
        "signature: the signature was not made with the signer's key"
    );
    let over_the_payload: Signature = key(5).sign(&payload);
    assert_eq!(
        refused(&over_the_payload.to_bytes()),
        "signature: the signature was not made with the signer's key"
    );
    let good: Signature = key(5).sign(&message);
    // The form that certificates have.
    assert!(
        refused(good.to_der().as_bytes()).starts_with("signature: the signature is not one of ES384: 10")
    );
    for length in [0, 64, 95, 97] {
        let expected = format!("signature: the signature is not one of ES384: {length} bytes");
        assert_eq!(refused(&vec![1; length]), expected);
    }
    assert!(refused(&[0; 96]).starts_with("signature: "));
}

#[test]
fn a_register_of_the_image_that_is_zero_or_missing_means_debug_mode() {
    for register in 0..3 {
        assert_eq!(refused(&with(|draft| draft.set(register, &[0; 48]))), ["debug"], "{register}");
        let missing = with(|draft| draft.registers.retain(|(index, _)| *index != register));
        assert_eq!(refused(&missing), ["debug"], "{register}");
    }
    assert_eq!(refused(&with(|draft| (3..5).for_each(|index| draft.set(index, &[0; 48])))), [""; 0]);
}
