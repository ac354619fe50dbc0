//! Certificates and signatures, against an emulated module and terminator.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::Bound;
use cloister_binding::certificate::Carried;
use cloister_binding::eventlog::Log;
use cloister_net::packets::pair;
use cloister_wire::terminator::{Sign, Signed};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::SendFlags;
use tokio::task::JoinHandle;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::*;
use crate::events::Events;
use crate::exchange::{Evidence, ModuleError, Reply as Answer, Request};
use crate::keeper::Keeper;
use crate::key::TlsKey;
use crate::module::Module;
use crate::provider::Provider;

/// Both of the attestor's pairs, and how often it has asked the module.
struct Attestor {
    questions: Packets,
    signer: Packets,
    /// The same ends as descriptors.
    raw: Vec<OwnedFd>,
    asked: Arc<AtomicUsize>,
    tasks: [JoinHandle<Result<(), MessageError>>; 2],
}

impl Attestor {
    fn start() -> Self {
        Self::after(0)
    }

    /// Its module fails so many times.
    fn after(failures: usize) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let counted = Arc::clone(&asked);
        let module = Module::serve("nitro", move |request| {
            let Request::Evidence(values) = request else { panic!("{request:?}") };
            if counted.fetch_add(1, Ordering::Relaxed) < failures {
                return Err(ModuleError::TimedOut("the security module"));
            }
            let fields = values.fields(&events.digests().head())?;
            let document = fields.user_data.unwrap();
            Ok(Answer::Evidence(Evidence { document, certificates: Vec::new(), events: events.snapshot() }))
        });
        let key = TlsKey::open(memfd_create("key", MemfdFlags::ALLOW_SEALING).unwrap()).unwrap();
        let tls = Tls::new(key, module.unwrap());
        let mut raw = Vec::new();
        let mut ends = || {
            let (ours, theirs) = pair().unwrap();
            raw.push(ours.try_clone().unwrap());
            [ours, theirs].map(|end: OwnedFd| Packets::new(end).unwrap())
        };
        let ([questions, answers], [signer, signatures]) = (ends(), ends());
        let remote = Remote::new(Arc::clone(&tls));
        let tasks =
            [tokio::spawn(converse(answers, Arc::clone(&tls), remote)), tokio::spawn(sign(signatures, tls))];
        Self { questions, signer, raw, asked, tasks }
    }

    async fn certificate(&self, id: u64) -> (String, u64) {
        self.questions.report(&Question::Certificate { id }).await.unwrap();
        match self.questions.next(&mut vec![0; LIMIT]).await.unwrap().0 {
            Reply::Certificate { id: of, der, fresh_ms } if of == id => (der, fresh_ms),
            other => panic!("{other:?}"),
        }
    }

    async fn signature(&self, id: u64, content: &[u8]) -> Option<String> {
        self.signer.report(&Sign { id, content: STANDARD.encode(content) }).await.unwrap();
        let (signed, _): (Signed, _) = self.signer.next(&mut vec![0; LIMIT]).await.unwrap();
        assert_eq!(signed.id, id);
        signed.signature
    }
}

impl Drop for Attestor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test]
async fn a_certificate_serves_the_handshakes_of_less_than_a_minute() {
    let attestor = Attestor::start();
    let (first, fresh) = attestor.certificate(1).await;
    assert!((40_000..=45_000).contains(&fresh), "{fresh}");
    assert_eq!(attestor.certificate(2).await.0, first);
    assert_eq!(attestor.asked.load(Ordering::Relaxed), 1, "one request to the module for both");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(44)).await;
    tokio::time::resume();
    let (same, left) = attestor.certificate(3).await;
    assert!(same == first && left <= 1_000, "{left}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_ne!(attestor.certificate(4).await.0, first);
    assert_eq!(attestor.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn only_handshakes_are_signed() {
    let attestor = Attestor::start();
    let content = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    assert!(attestor.signature(1, &content).await.is_some());
    assert_eq!(attestor.signature(2, b"a certificate").await, None);
}

#[tokio::test]
async fn an_invalid_message_of_the_terminator_ends_nothing() {
    let attestor = Attestor::start();
    attestor.questions.send(b"not a message").await.unwrap();
    attestor.signer.send(b"{}").await.unwrap();
    attestor.certificate(1).await;
    assert_eq!(attestor.signature(2, b"").await, None);
}

#[tokio::test]
async fn the_evidence_of_a_certificate_binds_its_key_and_its_serial_number() {
    let attestor = Attestor::start();
    let der = STANDARD.decode(attestor.certificate(1).await.0).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    let body = certificate.tbs_certificate();
    let [extension] = &body.extensions().unwrap()[..] else { panic!("one extension") };
    let carried = Carried::decode(extension.extn_value.as_bytes()).unwrap();
    let bound = Bound {
        nonce: body.serial_number().as_bytes(),
        public_key: &body.subject_public_key_info().to_der().unwrap(),
        events: &Log::booted().head(),
        user_data: b"",
    };
    assert_eq!(
        (carried.platform.as_str(), carried.evidence),
        ("nitro", bound.report_data().unwrap().to_vec())
    );
}

#[tokio::test]
async fn without_evidence_there_is_a_certificate_that_proves_nothing_and_is_replaced_soon() {
    let attestor = Attestor::after(1);
    let has_evidence = |der: &str| {
        let certificate = Certificate::from_der(&STANDARD.decode(der).unwrap()).unwrap();
        certificate.tbs_certificate().extensions().is_some()
    };
    let (first, fresh) = attestor.certificate(1).await;
    assert!(!has_evidence(&first) && fresh <= 1_000, "{fresh}");
    assert_eq!(attestor.certificate(2).await.0, first, "all clients of a second share the failure");
    assert_eq!(attestor.asked.load(Ordering::Relaxed), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    assert!(has_evidence(&attestor.certificate(3).await.0));
}

#[tokio::test]
async fn a_recorded_event_makes_the_certificate_outdated() {
    let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
    let module =
        Module::start("virtual", Provider::Module(Box::new(Keeper::new("virtual", None, events)))).unwrap();
    let key = TlsKey::open(memfd_create("key", MemfdFlags::ALLOW_SEALING).unwrap()).unwrap();
    let tls = Tls::new(key, module.clone());
    let (ours, theirs) = pair().unwrap();
    let (ours, theirs) = (Packets::new(ours).unwrap(), Packets::new(theirs).unwrap());
    let remote = Remote::new(Arc::clone(&tls));
    let serving = tokio::spawn(converse(theirs, tls, remote));
    ours.report(&Question::Certificate { id: 1 }).await.unwrap();
    let mut buffer = vec![0; LIMIT];
    assert!(matches!(ours.next(&mut buffer).await.unwrap().0, Reply::Certificate { id: 1, .. }));
    module.note_recorded();
    assert_eq!(ours.next::<Reply>(&mut buffer).await.unwrap().0, Reply::Outdated);
    serving.abort();
}

#[tokio::test]
async fn an_empty_packet_ends_nothing() {
    let attestor = Attestor::start();
    for end in &attestor.raw {
        rustix::net::send(end, b"", SendFlags::empty()).unwrap();
    }
    attestor.certificate(1).await;
    assert_eq!(attestor.signature(2, b"").await, None);
}
