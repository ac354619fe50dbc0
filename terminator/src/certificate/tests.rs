//! Certificates from an attestor that the test plays.

use cloister_net::packets::pair;
use tokio::task::JoinHandle;

use super::*;

/// The certificates, and the attestor's end of the pair.
struct Asked {
    certificates: Arc<Certificates>,
    attestor: Packets,
    receiving: JoinHandle<Result<(), MessageError>>,
}

impl Asked {
    fn start() -> Self {
        let (ours, theirs) = pair().unwrap();
        Self::with(ours, theirs)
    }

    fn with(ours: std::os::fd::OwnedFd, theirs: std::os::fd::OwnedFd) -> Self {
        let (signer, _attestor) = pair().unwrap();
        let certificates =
            Certificates::new(Arc::new(Packets::new(ours).unwrap()), Signer::new(signer).unwrap()).unwrap();
        let receiving = tokio::spawn({
            let certificates = Arc::clone(&certificates);
            async move { certificates.receive().await }
        });
        Self { certificates, attestor: Packets::new(theirs).unwrap(), receiving }
    }

    /// A client that needs a certificate.
    fn client(&self) -> JoinHandle<Option<Arc<ServerConfig>>> {
        let certificates = Arc::clone(&self.certificates);
        tokio::spawn(async move { certificates.config().await })
    }

    /// The ID of the next question.
    async fn question(&self) -> u64 {
        match self.attestor.next(&mut vec![0; LIMIT]).await.unwrap().0 {
            Question::Certificate { id } => id,
            Question::Client => panic!("a client"),
        }
    }

    async fn reply(&self, id: u64, fresh_ms: u64) {
        self.attestor.report(&Reply::Certificate { id, der: "MAA=".into(), fresh_ms }).await.unwrap();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

#[tokio::test]
async fn one_question_serves_all_clients_until_the_certificate_is_old_or_outdated() {
    let asked = Asked::start();
    let clients = [asked.client(), asked.client(), asked.client()];
    asked.reply(asked.question().await, 45_000).await;
    let mut configurations = Vec::new();
    for client in clients {
        configurations.push(client.await.unwrap().unwrap());
    }
    assert!(configurations.iter().all(|one| Arc::ptr_eq(one, &configurations[0])));
    asked.attestor.report(&Reply::Outdated).await.unwrap();
    // The message is read before the next client comes, since the reactor is polled meanwhile.
    while asked.certificates.outdated.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let client = asked.client();
    asked.reply(asked.question().await, 0).await;
    assert!(!Arc::ptr_eq(&client.await.unwrap().unwrap(), &configurations[0]));
    let client = asked.client();
    asked.reply(asked.question().await, 45_000).await;
    assert!(client.await.unwrap().is_some(), "one that is not fresh any more is replaced");
}

#[tokio::test]
async fn a_question_that_is_not_answered_is_repeated_and_a_late_reply_serves() {
    let asked = Asked::start();
    let client = asked.client();
    let first = asked.question().await;
    let second = asked.question().await;
    assert!(second > first);
    asked.reply(first, 45_000).await;
    assert!(client.await.unwrap().is_some());
}

#[tokio::test]
async fn a_reply_to_a_predecessor_is_not_used() {
    let (ours, theirs) = pair().unwrap();
    let before = Asked::with(ours.try_clone().unwrap(), theirs.try_clone().unwrap());
    let client = before.client();
    let unanswered = before.question().await;
    client.abort();
    drop(before);
    let asked = Asked::with(ours, theirs);
    asked.reply(unanswered, 45_000).await;
    let client = asked.client();
    let id = asked.question().await;
    assert_ne!(id, unanswered);
    // The old reply is there, and does not serve.
    let again = asked.question().await;
    assert!(again > id && !client.is_finished());
    asked.reply(again, 45_000).await;
    assert!(client.await.unwrap().is_some());
}

#[tokio::test]
async fn a_failure_is_shared_by_the_clients_of_a_second() {
    let asked = Asked::start();
    let client = asked.client();
    asked.attestor.report(&Reply::None { id: asked.question().await }).await.unwrap();
    assert!(client.await.unwrap().is_none());
    assert!(asked.client().await.unwrap().is_none(), "it is not asked again");
}
