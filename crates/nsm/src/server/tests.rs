//! Both sides together, the bytes of the vendor's library, and hostile requests.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::{Claims, Description, Module, NsmError, Pcr};

/// What the server reads of the request that the client sends in `ask`, passed to `check`.
fn asked(ask: impl FnOnce(&Module<&dyn Fn(&[u8]) -> std::io::Result<Vec<u8>>>), check: impl Fn(Request<'_>)) {
    let sent = RefCell::new(Vec::new());
    let exchange = |bytes: &[u8]| {
        *sent.borrow_mut() = bytes.to_vec();
        Ok(Response::Refused(Refusal::InternalError).encode())
    };
    ask(&Module::over(&exchange));
    check(Request::read(&sent.borrow()).unwrap());
}

/// A client whose module gives this response.
fn answered(response: &Response<'_>) -> Module<impl Fn(&[u8]) -> std::io::Result<Vec<u8>> + use<>> {
    let bytes = response.encode();
    Module::over(move |_| Ok(bytes.clone()))
}

#[test]
fn every_request_of_the_client_is_read_as_it_was_meant() {
    asked(|module| drop(module.describe()), |request| assert_eq!(request, Request::Describe));
    asked(|module| drop(module.random()), |request| assert_eq!(request, Request::Random));
}

#[test]
fn requests_that_the_vendors_library_reads_are_read() {
    let read = |bytes| Request::read(bytes);
    assert_eq!(read(b"\xa1\x6bAttestation\xa0"), Ok(Request::Attest(Claims::default())));
    assert_eq!(
        read(b"\xa1\x67LockPCR\xa2\x65other\x82\x01\x80\x65index\x10"),
        Ok(Request::Lock { index: 16 })
    );
    let reordered = read(b"\xa1\x69ExtendPCR\xa2\x64data\x41x\x65index\x19\x01\x00");
    assert_eq!(reordered, Ok(Request::Extend { index: 256, data: b"x" }));
}

#[test]
fn a_refused_request_gets_the_modules_reason() {
    use Refusal::{InputTooLarge, InvalidArgument, InvalidOperation};
    let claim = |name: &str, length: usize| {
        let head = [0xa1, 0x6b]
            .into_iter()
            .chain(*b"Attestation")
            .chain([0xa1, 0x60 + u8::try_from(name.len()).unwrap()]);
        let length_bytes = u16::try_from(length).unwrap().to_be_bytes();
        let head: Vec<u8> = head.chain(name.bytes()).chain([0x59]).chain(length_bytes).collect();
        [head, vec![7; length]].concat()
    };
    let cases: Vec<(Vec<u8>, Refusal)> = vec![
        (b"".to_vec(), InvalidOperation),
        (b"\x00".to_vec(), InvalidOperation),
        (b"\x67LockPCR".to_vec(), InvalidOperation),
        (b"\xa1\x69GetRandom\xf6".to_vec(), InvalidOperation),
        (b"\xa1\x65Other\xa0".to_vec(), InvalidOperation),
        (b"\xa2\x67LockPCR\xa1\x65index\x10\x67LockPCR\xa1\x65index\x11".to_vec(), InvalidOperation),
        (b"\xbf\x67LockPCR\xa1\x65index\x10\xff".to_vec(), InvalidOperation),
        (b"\x69GetRandom\x00".to_vec(), InvalidArgument),
        (b"\xa1\x67LockPCR\xa0".to_vec(), InvalidArgument),
        (b"\xa1\x67LockPCR\x10".to_vec(), InvalidArgument),
        (b"\xa1\x67LockPCR\xa1\x65index\x1a\x00\x01\x00\x00".to_vec(), InvalidArgument),
        (b"\xa1\x67LockPCR\xa1\x65index\x20".to_vec(), InvalidArgument),
        (b"\xa1\x67LockPCR\xa2\x65index\x10\x65index\x11".to_vec(), InvalidArgument),
        (b"\xa1\x68LockPCRs\xa1\x65index\x10".to_vec(), InvalidArgument),
        (b"\xa1\x69ExtendPCR\xa1\x65index\x10".to_vec(), InvalidArgument),
        (
            b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x5b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            InvalidArgument,
        ),
        (b"\xa1\x6bAttestation\xbb\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), InvalidArgument),
        (b"\xa1\x6bAttestation\xa1\x6apublic_key\x40".to_vec(), InvalidArgument),
        (claim("user_data", 513), InputTooLarge),
        (claim("nonce", 513), InputTooLarge),
        (claim("public_key", 1025), InputTooLarge),
        (vec![0x69; 0x1001], InputTooLarge),
    ];
    for (request, refusal) in cases {
        assert_eq!(Request::read(&request), Err(refusal), "{request:?}");
    }
    for (name, length) in [("user_data", 512), ("nonce", 512), ("public_key", 1024)] {
        assert!(Request::read(&claim(name, length)).is_ok(), "{name}");
    }
}

#[test]
fn deep_nesting_in_an_unknown_field_is_refused_without_recursion() {
    let head = b"\xa1\x67LockPCR\xa2\x65index\x10\x65other";
    let nested = [&head[..], &[0x81; 4000]].concat();
    assert_eq!(Request::read(&nested), Err(Refusal::InvalidArgument));
}

/// The bytes are those of aws-nitro-enclaves-nsm-api 0.5.2 with `serde_cbor` 0.11.2.
#[test]
fn responses_have_the_bytes_of_the_vendors_library() {
    let encoded = |response: Response<'_>| response.encode();
    let pcr = Pcr { locked: true, value: vec![1, 2] };
    assert_eq!(encoded(Response::Pcr(&pcr)), b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64data\x42\x01\x02");
    assert_eq!(encoded(Response::Extended(&[1, 2])), b"\xa1\x69ExtendPCR\xa1\x64data\x42\x01\x02");
    assert_eq!(encoded(Response::Document(&[1, 2])), b"\xa1\x6bAttestation\xa1\x68document\x42\x01\x02");
    assert_eq!(encoded(Response::Random(&[1, 2])), b"\xa1\x69GetRandom\xa1\x66random\x42\x01\x02");
    assert_eq!(encoded(Response::Locked), b"\x67LockPCR");
    assert_eq!(encoded(Response::LockedBelow), b"\x68LockPCRs");
    assert_eq!(encoded(Response::Refused(Refusal::ReadOnlyIndex)), b"\xa1\x65Error\x6dReadOnlyIndex");
    let description = Description {
        version: (1, 0, 0),
        module_id: "virtual-1".into(),
        max_pcrs: 32,
        locked_pcrs: vec![0, 1, 31],
        digest: "SHA384".into(),
    };
    let expected: &[u8] = b"\xa1\x6bDescribeNSM\xa7\x6dversion_major\x01\x6dversion_minor\x00\
        \x6dversion_patch\x00\x69module_id\x69virtual-1\x68max_pcrs\x18 \x6blocked_pcrs\x83\x00\x01\x18\x1f\
        \x66digest\x66SHA384";
    assert_eq!(encoded(Response::Description(&description)), expected);
}

/// As above: the payload is the vendor's `AttestationDoc::to_binary`. The envelope is RFC 9052's, section 4.2 and 4.4.
#[test]
fn a_document_has_the_bytes_of_the_vendors_library() {
    let document = Document {
        module_id: "virtual-1",
        digest: "SHA384",
        timestamp: 1_764_500_000_123,
        pcrs: &[(0, &[1; 2]), (16, &[2; 2]), (31, &[3; 2])],
        certificate: &[9, 9],
        bundle: &[&[7], &[8]],
        claims: Claims { user_data: Some(b"data"), nonce: None, public_key: Some(b"key") },
    };
    let payload: &[u8] = b"\xa9\x69module_id\x69virtual-1\x66digest\x66SHA384\x69timestamp\x1b\x00\x00\x01\x9a\xd4\x65\x4d\x7b\
        \x64pcrs\xa3\x00\x42\x01\x01\x10\x42\x02\x02\x18\x1f\x42\x03\x03\x6bcertificate\x42\x09\x09\
        \x68cabundle\x82\x41\x07\x41\x08\x6apublic_key\x43key\x69user_data\x44data\x65nonce\xf6";
    assert_eq!(document.payload(), payload);
    let head: &[u8] = b"\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40\x43abc";
    assert_eq!(to_be_signed(b"abc"), head);
    let document: &[u8] = b"\x84\x44\xa1\x01\x38\x22\xa0\x43abc\x58\x60";
    assert_eq!(signed(b"abc", &[5; 96]), [document, &[5; 96]].concat());
}

#[test]
fn the_client_reads_every_refusal_by_its_name() {
    for refusal in [
        Refusal::InvalidArgument,
        Refusal::InvalidIndex,
        Refusal::InvalidResponse,
        Refusal::ReadOnlyIndex,
        Refusal::InvalidOperation,
        Refusal::BufferTooSmall,
        Refusal::InputTooLarge,
        Refusal::InternalError,
    ] {
        let read = answered(&Response::Refused(refusal)).random().unwrap_err();
        assert!(matches!(&read, NsmError::Refused(name) if name == refusal.name()), "{read:?}");
    }
}

fn bytes(limit: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 1..=limit))
}

proptest! {
    #[test]
    fn requests_survive_the_way_from_the_client_to_the_server(
        index: u16,
        data in prop::collection::vec(any::<u8>(), 0..2000),
        user_data in bytes(512),
        nonce in bytes(512),
        public_key in bytes(1024),
    ) {
        asked(|module| drop(module.pcr(index)), |request| assert_eq!(request, Request::Pcr { index }));
        asked(|module| drop(module.lock(index)), |request| assert_eq!(request, Request::Lock { index }));
        asked(|module| drop(module.lock_below(index)), |request| assert_eq!(request, Request::LockBelow { range: index }));
        asked(|module| drop(module.extend(index, &data)), |request| assert_eq!(request, Request::Extend { index, data: &data }));
        let claims = Claims { user_data: user_data.as_deref(), nonce: nonce.as_deref(), public_key: public_key.as_deref() };
        asked(|module| drop(module.attest(claims)), |request| assert_eq!(request, Request::Attest(claims)));
    }

    #[test]
    fn responses_survive_the_way_from_the_server_to_the_client(
        locked: bool,
        value in prop::collection::vec(any::<u8>(), 48),
        random in prop::collection::vec(any::<u8>(), 1..=256),
        document in prop::collection::vec(any::<u8>(), 0..8000),
        module_id in "[!-~]{1,60}",
        version: (u16, u16, u16),
        max_pcrs: u16,
        locked_pcrs in prop::collection::vec(any::<u16>(), 0..=256),
    ) {
        let pcr = Pcr { locked, value };
        prop_assert_eq!(&answered(&Response::Pcr(&pcr)).pcr(0).unwrap(), &pcr);
        prop_assert_eq!(&answered(&Response::Extended(&pcr.value)).extend(0, b"").unwrap(), &pcr.value);
        prop_assert_eq!(answered(&Response::Random(&random)).random().unwrap(), random);
        prop_assert_eq!(answered(&Response::Document(&document)).attest(Claims::default()).unwrap(), document);
        answered(&Response::Locked).lock(0).unwrap();
        answered(&Response::LockedBelow).lock_below(0).unwrap();
        let description = Description { version, module_id, max_pcrs, locked_pcrs, digest: "SHA384".into() };
        prop_assert_eq!(answered(&Response::Description(&description)).describe().unwrap(), description);
    }

    #[test]
    fn no_bytes_make_the_server_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Request::Extend { data, .. }) = Request::read(&bytes) {
            prop_assert!(data.len() < bytes.len());
        }
    }
}
