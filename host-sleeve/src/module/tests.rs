//! Documents, verified as a client of the enclave verifies them, and requests of a hostile enclave.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloister_evidence::nitro::{
    self, Binding, Document, Events, Expectation, Freshness, Measurements, Nonce, Roots,
};
use cloister_evidence::policy::Registers;
use cloister_evidence::{Check, Outcome, Verdict, Verified};
use cloister_image::measure::{NitroPcrs, Pcr};
use cloister_net::channel::{self, ChannelError, Limits};
use cloister_nsm::channel::Channel;
use cloister_nsm::{Claims, Module as Client, NsmError};
use cloister_wire::hello::{Protocol, Role};
use proptest::prelude::*;
use tokio::task::JoinHandle;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::certificate::{Issued, NAME};
use super::root::now;
use super::*;

/// A verifier that accepts what any enclave of a trusted development root has signed.
const ANY: Expectation<'_> = Expectation {
    allow_virtual: true,
    freshness: Freshness { max_age: 0, max_ahead: 0 },
    nonce: Nonce::Unchecked,
    binding: Binding::Unchecked,
    measurements: Measurements::Unchecked,
    events: Events::Unchecked,
};

fn image() -> NitroPcrs {
    NitroPcrs { pcr0: Pcr::of(b"0"), pcr1: Pcr::of(b"1"), pcr2: Pcr::of(b"2"), pcr8: None }
}

fn module(state: &Path) -> RefCell<Module> {
    RefCell::new(Module::new(&image(), state.to_owned()).unwrap())
}

fn client(module: &RefCell<Module>) -> Client<impl Fn(&[u8]) -> std::io::Result<Vec<u8>> + '_> {
    Client::over(|request| Ok(module.borrow_mut().answer(request)))
}

/// The bytes of a document that was created at this second.
fn attest_at(module: &RefCell<Module>, second: u64, claims: Claims<'_>) -> Vec<u8> {
    let at = Duration::from_secs(second);
    let client = Client::over(|request: &[u8]| Ok(module.borrow_mut().answer_at(request, at)));
    client.attest(claims).unwrap()
}

/// The digest of the root below this state directory.
fn root_of(state: &Path) -> [u8; 32] {
    *DevelopmentRoot::open(state).unwrap().digest().bytes()
}

/// The document that a client of this host accepts at this second.
fn accepted(state: &Path, document: &[u8], second: u64) -> Document {
    let roots = Roots::aws().with_development(root_of(state));
    nitro::verify(document, &roots, second, &ANY).map(Verified::into_value).unwrap()
}

/// The certificates of the root and the module.
fn certificates(document: &Document) -> [Certificate; 2] {
    let [root] = document.bundle.as_slice() else { panic!("{} certificates", document.bundle.len()) };
    [root, &document.certificate].map(|der| Certificate::from_der(der).unwrap())
}

/// The checks that failed.
fn failures(result: Result<Verified<Document>, Verdict>) -> Vec<&'static str> {
    let verdict = result.map_or_else(|verdict| verdict, |verified| verified.verdict().clone());
    assert_eq!(verdict.platform, "virtual");
    let failed = |check: &Check| matches!(check.outcome, Outcome::Fail(_));
    verdict.checks.iter().filter(|check| failed(check)).map(|check| check.name).collect()
}

#[test]
fn a_document_is_that_of_nitro_and_verifies_up_to_the_root_on_the_disk() {
    let state = tempfile::tempdir().unwrap();
    let module = module(state.path());
    let client = client(&module);
    let value = client.extend(17, b"event").unwrap();
    client.extend(18, b"not locked").unwrap();
    client.lock(17).unwrap();
    let claims = Claims { user_data: Some(&[1; 512]), nonce: Some(&[2; 512]), public_key: Some(&[3; 1024]) };
    let second = now().as_secs();
    let bytes = attest_at(&module, second, claims);
    let document = accepted(state.path(), &bytes, second);
    assert_eq!(document.timestamp, second * 1000);
    let mut expected: Registers = (0..16).map(|index| (index, vec![0; 48])).collect();
    for (index, pcr) in [(0, image().pcr0), (1, image().pcr1), (2, image().pcr2)] {
        expected.insert(index, pcr.bytes().to_vec());
    }
    expected.insert(17, value);
    assert_eq!(document.registers, expected, "locked registers and no others");
    assert_eq!(document.user_data, Some(vec![1; 512]));
    assert_eq!(document.nonce, Some(vec![2; 512]));
    assert_eq!(document.public_key, Some(vec![3; 1024]));
    assert!(bytes.len() < cloister_wire::module::RESPONSE_LIMIT);
    let without = accepted(state.path(), &attest_at(&module, second, Claims::default()), second);
    assert_eq!((without.user_data, without.nonce, without.public_key), (None, None, None));
}

#[test]
fn a_document_is_refused_unless_its_root_is_trusted_for_virtual_and_virtual_is_allowed() {
    let state = tempfile::tempdir().unwrap();
    let second = now().as_secs();
    let document = attest_at(&module(state.path()), second, Claims::default());
    let root = root_of(state.path());
    let another = root_of(tempfile::tempdir().unwrap().path());
    let check = |roots: Roots, allow_virtual| {
        failures(nitro::verify(&document, &roots, second, &Expectation { allow_virtual, ..ANY }))
    };
    assert_eq!(check(Roots::aws().with_development(root), true), [""; 0]);
    assert_eq!(check(Roots::aws().with_development(root), false), ["platform"]);
    assert_eq!(check(Roots::aws(), true), ["root"]);
    assert_eq!(check(Roots::aws().with_development(another), true), ["root"]);
    // As a root of AWS Nitro it vouches for nothing.
    assert_eq!(check(Roots::aws().with_nitro(root), true), ["root"]);
    assert_eq!(check(Roots::aws().with_nitro(root).with_development(root), true), ["root"]);
}

#[test]
fn everything_in_a_document_states_that_it_is_virtual() {
    let state = tempfile::tempdir().unwrap();
    let module = module(state.path());
    let second = now().as_secs();
    let document = accepted(state.path(), &attest_at(&module, second, Claims::default()), second);
    let id = &document.module_id;
    assert!(id.starts_with("virtual-") && id.len() == 24, "{id}");
    assert_eq!(*id, client(&module).describe().unwrap().module_id);
    let [root, leaf] = certificates(&document);
    for certificate in [&root, &leaf] {
        let subject = certificate.tbs_certificate().subject().to_der().unwrap();
        assert!(subject.windows(NAME.len()).any(|bytes| bytes == NAME.as_bytes()), "{subject:?}");
    }
    let subject = leaf.tbs_certificate().subject().to_string();
    assert!(subject.contains(id.as_str()), "{subject}");
    assert!(NAME.contains("VIRTUAL") && NAME.contains("not hardware"));
}

#[test]
fn the_root_is_an_authority_and_the_modules_certificate_is_none() {
    let state = tempfile::tempdir().unwrap();
    let second = now().as_secs();
    let document = attest_at(&module(state.path()), second, Claims::default());
    let [root, leaf] = certificates(&accepted(state.path(), &document, second));
    let constraints = |certificate: &Certificate| {
        let (critical, found) =
            certificate.tbs_certificate().get_extension::<BasicConstraints>().unwrap().unwrap();
        (critical, found.ca)
    };
    let usage = |certificate: &Certificate| {
        certificate.tbs_certificate().get_extension::<KeyUsage>().unwrap().unwrap().1
    };
    assert_eq!((constraints(&root), constraints(&leaf).1), ((true, true), false));
    assert!(usage(&root).key_cert_sign() && !usage(&root).digital_signature());
    assert!(usage(&leaf).digital_signature() && !usage(&leaf).key_cert_sign());
    assert_ne!(root.tbs_certificate().serial_number(), leaf.tbs_certificate().serial_number());
}

#[test]
fn the_modules_certificate_is_renewed_before_it_expires_and_if_the_clock_was_set_back() {
    let state = tempfile::tempdir().unwrap();
    let module = module(state.path());
    let start = now().as_secs();
    let at = |seconds| {
        let second = start + seconds;
        accepted(state.path(), &attest_at(&module, second, Claims::default()), second).certificate
    };
    let first = at(0);
    let (issued, _) = Issued::read(first.clone()).unwrap();
    assert_eq!(issued.not_after - issued.not_before, 3 * 3600 + 300);
    assert_eq!(at(3 * 3600 - 400), first);
    let second = at(3 * 3600 - 200);
    assert_ne!(second, first);
    assert_ne!(at(0), second, "a certificate that is not valid yet was used");
    assert_ne!(module.borrow().id, self::module(state.path()).borrow().id);
}

#[test]
fn without_a_usable_root_documents_are_refused_and_registers_work() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join(".virtual"), "not a directory").unwrap();
    let module = module(state.path());
    let client = client(&module);
    client.extend(16, b"event").unwrap();
    for _ in 0..2 {
        let refused = client.attest(Claims::default()).unwrap_err();
        assert!(matches!(&refused, NsmError::Refused(name) if name == "InternalError"), "{refused:?}");
    }
    std::fs::remove_file(state.path().join(".virtual")).unwrap();
    client.attest(Claims::default()).unwrap();
}

#[test]
fn random_bytes_are_as_many_as_a_module_returns_and_differ() {
    let state = tempfile::tempdir().unwrap();
    let module = module(state.path());
    let (first, second) = (client(&module).random().unwrap(), client(&module).random().unwrap());
    assert!(first.len() == 256 && first != second);
}

#[test]
fn the_channels_limits_are_the_modules() {
    assert_eq!(cloister_wire::module::REQUEST_LIMIT, cloister_nsm::REQUEST_LIMIT);
    assert_eq!(cloister_wire::module::RESPONSE_LIMIT, cloister_nsm::RESPONSE_LIMIT);
}

/// This end of a pair, for the reactor.
fn reactor(end: UnixStream) -> tokio::net::UnixStream {
    end.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(end).unwrap()
}

/// Serves a module to the other end of a pair, until that ends.
fn served(module: Arc<Mutex<Module>>) -> (JoinHandle<ChannelError>, UnixStream) {
    let (host, guest) = UnixStream::pair().unwrap();
    let serving = tokio::spawn(async move {
        let (receiver, sender) =
            channel::open(reactor(host), Protocol::SecurityModule, Role::Host, LIMITS).await.unwrap();
        serve(receiver, sender, &module).await.unwrap_err()
    });
    (serving, guest)
}

#[tokio::test]
async fn the_client_inside_uses_the_module_over_a_stream_as_it_uses_the_device() {
    let state = tempfile::tempdir().unwrap();
    let module = Arc::new(Mutex::new(Module::new(&image(), state.path().to_owned()).unwrap()));
    let (serving, guest) = served(module);
    let inside = tokio::task::spawn_blocking(|| {
        let channel = Channel::open(guest.into(), "virtual").unwrap();
        let client = Client::over(|request: &[u8]| channel.exchange(request));
        assert!(client.describe().unwrap().module_id.starts_with("virtual-"));
        let refused = client.extend(0, b"event").unwrap_err();
        assert!(matches!(&refused, NsmError::Refused(why) if why == "ReadOnlyIndex"), "{refused:?}");
        let longest =
            Claims { user_data: Some(&[1; 512]), nonce: Some(&[2; 512]), public_key: Some(&[3; 1024]) };
        client.attest(longest).unwrap()
    });
    let document = inside.await.unwrap();
    let roots = Roots::aws().with_development(root_of(state.path()));
    let expectation = Expectation { freshness: Freshness::default(), ..ANY };
    assert_eq!(failures(nitro::verify(&document, &roots, now().as_secs(), &expectation)), [""; 0]);
    assert!(matches!(serving.await.unwrap(), ChannelError::Closed));
}

#[tokio::test]
async fn requests_that_arrive_together_are_answered_in_order() {
    let state = tempfile::tempdir().unwrap();
    let module = Arc::new(Mutex::new(Module::new(&image(), state.path().to_owned()).unwrap()));
    let (serving, guest) = served(module);
    let opened = channel::open(reactor(guest), Protocol::SecurityModule, Role::Guest, Limits::HOST).await;
    let (mut receiver, mut sender) = opened.unwrap();
    let requests: [&[u8]; 4] = [
        b"\xa1\x67LockPCR\xa1\x65index\x10",
        b"\xa1\x67LockPCR\xa1\x65index\x10",
        b"",
        b"\xa1\x68LockPCRs\xa1\x65range\x12",
    ];
    let frames = requests.map(|request| cloister_wire::module::request(request).unwrap());
    sender.send_encoded(&frames.concat()).await.unwrap();
    let mut responses = Vec::new();
    while responses.len() < 4 {
        match receiver.arrived().unwrap() {
            Some(body) => responses.push(body.to_vec()),
            None => receiver.fill().await.unwrap(),
        }
    }
    let expected: [&[u8]; 4] = [
        b"\x67LockPCR",
        b"\xa1\x65Error\x6dReadOnlyIndex",
        b"\xa1\x65Error\x70InvalidOperation",
        b"\x68LockPCRs",
    ];
    assert_eq!(responses, expected);
    drop((receiver, sender));
    assert!(matches!(serving.await.unwrap(), ChannelError::Closed));
}

proptest! {
    #[test]
    fn no_request_stops_the_module_or_changes_a_locked_register(
        requests in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..20),
        index: u16,
    ) {
        let state = tempfile::tempdir().unwrap();
        let module = module(state.path());
        for request in &requests {
            let response = module.borrow_mut().answer(request);
            prop_assert!((1..=cloister_nsm::RESPONSE_LIMIT).contains(&response.len()));
        }
        drop(client(&module).extend(index % 16, b"data"));
        prop_assert_eq!(client(&module).pcr(0).unwrap().value, image().pcr0.bytes().to_vec());
    }
}
