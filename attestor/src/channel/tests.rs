//! Clients as the supervisor passes them on, against a module that the test emulates.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Std;
use std::time::Duration;

use cloister_net::packets::pair;
use cloister_nsm::NsmError;
use cloister_wire::attestor::Operation;
use cloister_wire::packet::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::exchange::{Reply, Request};

/// The supervisor's end, and an attestor that serves the other.
struct Attestor {
    ours: Packets,
    task: JoinHandle<Result<(), MessageError>>,
}

impl Attestor {
    async fn start(module: Module) -> Self {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Packets::new(ours).unwrap(), Packets::new(theirs).unwrap());
        let task = tokio::spawn(converse(theirs, module));
        ours.report(&ToAttestor::Confirm { id: 7 }).await.unwrap();
        let (ready, _): (FromAttestor, _) = ours.next(&mut [0; 64]).await.unwrap();
        assert_eq!(ready, FromAttestor::Ready { id: 7 });
        Self { ours, task }
    }

    /// An attestor with a module that repeats each request as text.
    async fn echo() -> Self {
        let module = Module::serve("nitro", |request| {
            let text = format!("{request:?}").into_bytes();
            Ok(if request == Request::Random { Reply::Random(text) } else { Reply::Document(text) })
        });
        Self::start(module.unwrap()).await
    }

    async fn client(&self, service: Option<&str>, allowed: &[Operation]) -> UnixStream {
        let (client, passed) = Std::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        passed.set_nonblocking(true).unwrap();
        let message = ToAttestor::Client { service: service.map(str::to_owned), allowed: allowed.to_vec() };
        self.ours.send_with(&encode(&message).unwrap(), &[OwnedFd::from(passed).as_fd()]).await.unwrap();
        UnixStream::from_std(client).unwrap()
    }

    /// The response to a request of a service that may do everything.
    async fn request(&self, line: &str, body: &str) -> String {
        exchange(self.client(Some("web"), &[Operation::Evidence, Operation::Random]).await, line, body).await
    }
}

impl Drop for Attestor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn exchange(mut client: UnixStream, line: &str, body: &str) -> String {
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\nHost: attestor\r\nContent-Length: {length}\r\n\r\n{body}");
    client.write_all(request.as_bytes()).await.unwrap();
    read(&mut client).await
}

/// Everything until the connection ends, or is reset because its request was not read.
async fn read(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while let Ok(1..) = client.read_buf(&mut bytes).await {}
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_request_is_answered_with_what_the_module_returns() {
    let attestor = Attestor::echo().await;
    let random = attestor.request("GET /v1/random", "").await;
    assert!(random.starts_with("HTTP/1.1 200 OK\r\n") && random.ends_with("\r\n\r\nRandom"), "{random}");
    assert!(random.contains("content-type: application/octet-stream\r\n"), "{random}");
    let document = attestor.request("POST /v1/attestation", r#"{"nonce": "AQI="}"#).await;
    assert!(
        document.ends_with("Attest(Fields { user_data: None, nonce: Some([1, 2]), public_key: None })"),
        "{document}"
    );
}

#[tokio::test]
async fn an_operation_that_is_not_allowed_is_refused_with_what_to_add() {
    let attestor = Attestor::echo().await;
    let client = attestor.client(Some("web"), &[Operation::Random]).await;
    let refused = exchange(client, "POST /v1/evidence", "").await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
    assert!(refused.contains("add `evidence` to attestation.services.web"), "{refused}");
}

#[tokio::test]
async fn a_client_that_is_allowed_nothing_is_refused_whatever_it_sends() {
    let attestor = Attestor::echo().await;
    for bytes in [&b"GET /v1/random HTTP/1.1\r\n\r\n"[..], b"\0\xff no request", b""] {
        let mut client = attestor.client(Some("web"), &[]).await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut refused = String::new();
        client.read_to_string(&mut refused).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
        assert!(refused.contains("list what it needs (evidence, random, extend, lock)"), "{refused}");
    }
    let refused = exchange(attestor.client(None, &[]).await, "GET /v1/random", "").await;
    assert!(refused.contains("this process is not part of a service"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_allowed_nothing_and_sends_without_end_is_disconnected() {
    let attestor = Attestor::echo().await;
    let mut client = attestor.client(Some("web"), &[]).await;
    let sent = async { while client.write_all(&[0; 4096]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_mins(1), sent).await.expect("it was disconnected");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused() {
    let attestor = Attestor::echo().await;
    let refused = attestor.request("POST /v1/attestation", &" ".repeat(4097)).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("the limit of 4096 bytes"), "{refused}");
    let refused = attestor.request("GET /v1/random", "{}").await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
}

#[tokio::test]
async fn a_body_that_ends_early_is_refused() {
    let attestor = Attestor::echo().await;
    let mut client = attestor.client(Some("web"), &[Operation::Evidence]).await;
    client.write_all(b"POST /v1/attestation HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
    client.shutdown().await.unwrap();
    let refused = read(&mut client).await;
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("the body is incomplete"), "{refused}");
}

#[tokio::test]
async fn a_refusal_of_the_module_is_reported() {
    let module =
        Module::serve("nitro", |_| Err(NsmError::Refused("InternalError".to_owned()).into())).unwrap();
    let refused = Attestor::start(module).await.request("GET /v1/random", "").await;
    assert!(refused.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{refused}");
    assert!(refused.contains("the security module refused: InternalError"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_module_that_does_not_answer_is_reported_and_the_attestor_serves_on() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let module = Module::serve("nitro", move |_| {
        wait.recv().unwrap();
        Ok(Reply::Random(b"answer".to_vec()))
    });
    let attestor = Attestor::start(module.unwrap()).await;
    let refused = attestor.request("GET /v1/random", "").await;
    assert!(refused.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{refused}");
    assert!(refused.contains("the security module did not respond within 10 s"), "{refused}");
    let unknown = attestor.request("GET /", "").await;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    // A paused clock would not wait for the module's thread.
    tokio::time::resume();
    // One for the request that was given up, if it was sent at all, and one for the next.
    release.send(()).unwrap();
    release.send(()).unwrap();
    let answered = attestor.request("GET /v1/random", "").await;
    assert!(answered.ends_with("answer"), "{answered}");
}

#[tokio::test]
async fn a_service_with_too_many_connections_is_refused_and_others_are_served() {
    let attestor = Attestor::echo().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CLIENTS_OF_SERVICE {
        idle.push(attestor.client(Some("web"), &[Operation::Random]).await);
    }
    let mut refused = attestor.client(Some("web"), &[Operation::Random]).await;
    let refused = read(&mut refused).await;
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(
        refused
            .ends_with(r#"{"error":"too many connections of this service: at most 8 are served at once"}"#)
    );
    let other = exchange(attestor.client(Some("db"), &[Operation::Random]).await, "GET /v1/random", "").await;
    assert!(other.ends_with("Random"), "{other}");
    drop(idle);
    let served = async {
        while !attestor.request("GET /v1/random", "").await.ends_with("Random") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), served).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_disconnected() {
    let attestor = Attestor::echo().await;
    let mut idle = attestor.client(Some("web"), &[Operation::Random]).await;
    let begin = tokio::time::Instant::now();
    assert_eq!(read(&mut idle).await, "");
    assert!((20..25).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_invalid_message_and_the_end_of_the_supervisor_end_the_attestor() {
    let mut attestor = Attestor::echo().await;
    attestor.ours.send(b"{}").await.unwrap();
    assert!(matches!((&mut attestor.task).await.unwrap(), Err(MessageError::Frame(_))));
    let (ours, theirs) = pair().unwrap();
    let module = Module::serve("nitro", |_| Ok(Reply::Random(Vec::new()))).unwrap();
    let served = tokio::spawn(converse(Packets::new(theirs).unwrap(), module));
    drop(ours);
    assert!(served.await.unwrap().is_err());
}
