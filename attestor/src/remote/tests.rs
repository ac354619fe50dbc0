//! What strangers may request, against a module that the test emulates.

use std::os::fd::OwnedFd;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloister_binding::Bound;
use cloister_binding::eventlog::Log;
use cloister_nsm::Pcr;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::events::Events;
use crate::exchange::{Evidence, ModuleError, Reply};
use crate::key::TlsKey;
use crate::module::Module;

/// The nonce `0123456789abcdef` in base64url.
const NONCE: &str = "MDEyMzQ1Njc4OWFiY2RlZg";

/// A server whose module returns the report data as its evidence.
struct Server {
    remote: Arc<Remote>,
    tls: Arc<Tls>,
}

impl Server {
    fn start() -> Self {
        Self::with(false)
    }

    /// Its module hangs.
    fn with(hangs: bool) -> Self {
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let module = Module::serve("nitro", move |request| {
            Ok(match request {
                Request::Evidence(_) if hangs => return Err(ModuleError::TimedOut("the security module")),
                Request::Evidence(values) => {
                    let fields = values.fields(&events.digests().head())?;
                    Reply::Evidence(Evidence {
                        document: fields.user_data.unwrap(),
                        certificates: Vec::new(),
                        events: events.snapshot(),
                    })
                }
                Request::Log => Reply::Log(events.snapshot()),
                _ => Reply::Registers(vec![(2, Pcr { locked: true, value: vec![7; 48] })]),
            })
        });
        let key = TlsKey::open(memfd_create("key", MemfdFlags::ALLOW_SEALING).unwrap()).unwrap();
        let tls = Tls::new(key, module.unwrap());
        Self { remote: Remote::new(Arc::clone(&tls)), tls }
    }

    async fn get(&self, target: &str, accept: &str) -> (String, Vec<u8>) {
        self.request(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")).await
    }

    /// The head and the body of the response.
    async fn request(&self, request: &str) -> (String, Vec<u8>) {
        let (client, served) = std::os::unix::net::UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        served.set_nonblocking(true).unwrap();
        self.remote.admit(OwnedFd::from(served)).await;
        let mut client = UnixStream::from_std(client).unwrap();
        // A client that is refused at once may be disconnected before it has sent its request.
        drop(client.write_all(request.as_bytes()).await);
        let mut response = Vec::new();
        client.read_to_end(&mut response).await.unwrap();
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(response[..end].to_vec()).unwrap(), response[end + 4..].to_vec())
    }

    async fn refused(&self, target: &str) -> String {
        let (head, body) = self.get(target, "*/*").await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        format!("{} {}", &head[9..12], body["error"].as_str().unwrap())
    }
}

#[tokio::test]
async fn evidence_binds_the_nonce_and_the_key_of_the_certificate() {
    let server = Server::start();
    let target = format!("/.well-known/cloister/evidence?nonce={NONCE}");
    let (head, body) = server.get(&target, "*/*").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/json"), "{head}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    let key = server.tls.public_key().unwrap();
    let events = Log::booted().head();
    let bound = Bound { nonce: b"0123456789abcdef", public_key: &key, events: &events, user_data: b"" };
    let expected = bound.report_data().unwrap();
    let decode =
        |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    assert_eq!(decode(&body["document"]), expected);
    assert_eq!(Log::parse(&decode(&body["events"])), Ok(Log::booted()));
    let (head, raw) = server.get(&target, "application/cbor").await;
    assert!(head.contains("application/cbor"), "{head}");
    assert_eq!(raw, expected);
}

#[tokio::test]
async fn evidence_without_a_nonce_or_with_an_unusable_one_is_refused() {
    let server = Server::start();
    for (query, why) in [
        ("", "400 the query has no nonce"),
        ("?nonce=", "400 the nonce has 0 bytes, the limits are 16 and 64"),
        ("?nonce=AAAA", "400 the nonce has 3 bytes"),
        ("?nonce=%41", "400 the nonce is not valid base64url"),
    ] {
        let refused = server.refused(&format!("/.well-known/cloister/evidence{query}")).await;
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = Server::start();
    for path in ["/", "/v1/evidence", "/v1/random", "/.well-known/cloister/", "/.well-known/cloister/extend"]
    {
        assert!(server.refused(path).await.starts_with("404 the resources are"), "{path}");
    }
    let post = "POST /.well-known/cloister/eventlog HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = server.request(post).await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET"), "{head}");
}

#[tokio::test]
async fn the_log_and_the_certificate_are_public() {
    let server = Server::start();
    let (_, log) = server.get("/.well-known/cloister/eventlog", "*/*").await;
    assert_eq!(Log::parse(&log), Ok(Log::booted()));
    let (head, pem) = server.get("/.well-known/cloister/certificate", "*/*").await;
    assert!(head.contains("application/pem-certificate-chain"), "{head}");
    let pem = String::from_utf8(pem).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\nMII"), "{pem}");
    assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    let (der, _) = server.tls.certificate().await.unwrap();
    assert_eq!(
        pem.lines().filter(|line| !line.starts_with('-')).collect::<String>(),
        *der,
        "it is the presented one"
    );
}

#[tokio::test]
async fn the_registers_are_shown_and_a_module_that_hangs_is_healthy_but_not_ready() {
    let server = Server::start();
    let (_, body) = server.get("/.well-known/cloister/measurements", "*/*").await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["registers"]["pcr2"], "07".repeat(48));
    let (_, body) = server.get("/.well-known/cloister/ready", "*/*").await;
    assert_eq!(body, br#"{"status":"ready"}"#);
    let server = Server::with(true);
    let (head, body) = server.get("/.well-known/cloister/health", "*/*").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body == br#"{"status":"serving"}"#, "{head}");
    let refused = server.refused("/.well-known/cloister/ready").await;
    assert_eq!(refused, "504 the security module did not respond within 10 s");
}

#[tokio::test]
async fn a_client_beyond_the_limit_gets_the_reason() {
    let server = Server::start();
    let mut idle = Vec::new();
    for _ in 0..MAX_REMOTE_CLIENTS {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        server.remote.admit(OwnedFd::from(theirs)).await;
        idle.push(ours);
    }
    let refused = server.refused("/.well-known/cloister/health").await;
    assert_eq!(refused, "503 too many clients: at most 16 are served at once");
    drop(idle);
}

#[tokio::test]
async fn a_nonce_that_imitates_a_binding_is_refused_and_padding_may_be_encoded() {
    let server = Server::start();
    let reserved = URL_SAFE_NO_PAD.encode(b"cloister bound 1 and more");
    let refused = server.refused(&format!("/.well-known/cloister/evidence?nonce={reserved}")).await;
    assert!(refused.starts_with("400 nonce begins with the bytes that are reserved"), "{refused}");
    for padding in ["", "==", "%3D%3D", "%3d%3d"] {
        let (head, _) =
            server.get(&format!("/.well-known/cloister/evidence?nonce={NONCE}{padding}"), "*/*").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("no-store"), "{head}");
    }
}
