//! Certificates and signatures, against a module that the test plays and a terminator that the test is.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloister_net::packets::pair;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::task::JoinHandle;

use super::*;
use crate::events::Events;
use crate::exchange::Evidence;

/// Both of the attestor's pairs, and how often it has asked the module.
struct Attestor {
    questions: Packets,
    signer: Packets,
    asked: Arc<AtomicUsize>,
    tasks: [JoinHandle<Result<(), MessageError>>; 2],
}

impl Attestor {
    fn start() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let counted = Arc::clone(&asked);
        let module = Module::serve("nitro", move |request| {
            let Request::Evidence(values) = request else { panic!("{request:?}") };
            counted.fetch_add(1, Ordering::Relaxed);
            let events = events.snapshot();
            Ok(Reply::Evidence(Evidence { document: values.nonce, certificates: Vec::new(), events }))
        });
        let key = TlsKey::open(memfd_create("key", MemfdFlags::ALLOW_SEALING).unwrap()).unwrap();
        let tls = Tls::new(key, module.unwrap());
        let ends =
            || pair().map(|(ours, theirs)| [ours, theirs].map(|end: OwnedFd| Packets::new(end).unwrap()));
        let ([questions, answers], [signer, signatures]) = (ends().unwrap(), ends().unwrap());
        let remote = Remote::new(Arc::clone(&tls));
        let tasks =
            [tokio::spawn(converse(answers, Arc::clone(&tls), remote)), tokio::spawn(sign(signatures, tls))];
        Self { questions, signer, asked, tasks }
    }

    async fn certificate(&self, id: u64) -> (String, u64) {
        self.questions.report(&Question::Certificate { id }).await.unwrap();
        match self.questions.next(&mut vec![0; LIMIT]).await.unwrap().0 {
            Answered::Certificate { id: of, der, fresh_ms } if of == id => (der, fresh_ms),
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
