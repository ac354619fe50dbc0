//! Tests of connections from outside. The test itself is the service's server.

use std::io;
use std::time::Duration;

use cloister_manifest::model::{Check, Ingress, Live, Manifest, Ready, Service};
use cloister_wire::control::{IngressCounters, Phase, Reply, Request, State, Verb};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;

use crate::enclave::Enclave;
use crate::host::soon;
use crate::manifest::{critical, manifest, service};

/// The port requested by clients.
pub(crate) const PORT: u16 = 80;

/// The end of one direction.
pub(crate) const END: &[u8] = b"\0\0\0\0";

pub(crate) async fn served() -> (Enclave, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap().port();
    let entry = Ingress { port: PORT, service: "web".into(), target, proxy_protocol: false };
    let manifest = Manifest { ingress: vec![entry], ..manifest(vec![critical("web", "exec sleep 1000")]) };
    (Enclave::boot_as("web", &manifest), server)
}

/// The ingress counters, as requested by a host now.
pub(crate) async fn counters(enclave: &Enclave) -> IngressCounters {
    match enclave.host().await.request(Request::Stats).await {
        Reply::Stats(stats) => stats.ingress,
        other => panic!("{other:?}"),
    }
}

/// Waits until the counters have these values: an end is counted when the gateway has seen it.
pub(crate) async fn counts(enclave: &Enclave, expected: IngressCounters) {
    soon(async {
        while counters(enclave).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(crate) async fn dial(enclave: &Enclave) -> UnixStream {
    try_dial(enclave).await.unwrap()
}

pub(crate) async fn try_dial(enclave: &Enclave) -> io::Result<UnixStream> {
    let header = Header { version: VERSION, port: PORT, client: None, framing: Framing::Chunked };
    let mut stream = UnixStream::connect(enclave.path("ingress")).await?;
    stream.write_all(&frame::encode(&header, HEADER_LIMIT).unwrap()).await?;
    Ok(stream)
}

#[tokio::test]
async fn a_connection_reaches_its_service_and_is_counted_after_a_crash() {
    let (mut enclave, server) = served().await;
    enclave.host().await.until_ready().await;
    let mut client = dial(&enclave).await;
    client.write_all(b"\0\0\0\x04ping").await.unwrap();
    let (mut service, _) = soon(server.accept()).await.unwrap();
    let mut bytes = [0; 4];
    soon(service.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"ping");
    service.write_all(b"pong!").await.unwrap();
    drop(service);
    client.write_all(END).await.unwrap();
    let mut answer = [0; 13];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x05pong!\0\0\0\0");
    drop(client);
    let counted = IngressCounters { accepted: 1, bytes_in: 4, bytes_out: 5, ..IngressCounters::default() };
    counts(&enclave, counted).await;
    enclave.crash();
    enclave.start_supervisor();
    enclave.host().await.until_ready().await;
    counts(&enclave, counted).await;
}

#[tokio::test]
async fn a_stop_lets_open_connections_finish_and_refuses_new_ones() {
    let (enclave, server) = served().await;
    let mut host = enclave.host().await;
    host.until_ready().await;
    let mut client = dial(&enclave).await;
    let (mut service, _) = soon(server.accept()).await.unwrap();
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    let draining = host.until(|s| matches!(s.state, State::Stopping { .. })).await;
    assert_eq!(draining.services[0].phase, Phase::Ready, "the service still serves open connections");
    soon(refused(&enclave)).await;
    service.write_all(b"done").await.unwrap();
    drop(service);
    client.write_all(END).await.unwrap();
    let mut answer = [0; 12];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x04done\0\0\0\0");
    drop(client);
    assert!(matches!(host.final_state().await, State::Signaled { signal: 15, .. }));
}

/// Connects until a connection is closed without a byte, which may appear as an end, a reset or a broken pipe. The gateway learns of
/// a drain a moment after the host reads the state, and serves what comes before that.
async fn refused(enclave: &Enclave) {
    let mut received = vec![];
    while let Ok(mut late) = try_dial(enclave).await {
        if timeout(Duration::from_millis(100), late.read_to_end(&mut received)).await.is_ok() {
            break;
        }
    }
    assert_eq!(received, b"");
}

#[tokio::test]
async fn repeated_requests_for_a_drain_start_one() {
    let (enclave, server) = served().await;
    let mut host = enclave.host().await;
    host.until_ready().await;
    let client = dial(&enclave).await;
    let (service, _) = soon(server.accept()).await.unwrap();
    assert_eq!(host.request(Request::Drain).await, Reply::Done);
    let before = enclave.tasks();
    for _ in 0..100 {
        assert_eq!(host.request(Request::Drain).await, Reply::Done);
    }
    assert_eq!(enclave.tasks(), before, "another drain would be another task");
    drop((client, service));
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    assert!(matches!(host.final_state().await, State::Signaled { signal: 15, .. }));
}

#[tokio::test]
async fn a_drain_continues_after_a_crash() {
    let (mut enclave, server) = served().await;
    enclave.host().await.until_ready().await;
    let (client, connection) = (dial(&enclave).await, soon(server.accept()).await.unwrap());
    assert_eq!(enclave.host().await.request(Request::Drain).await, Reply::Done);
    drop((client, connection));
    enclave.crash();
    enclave.start_supervisor();
    enclave.host().await.until_ready().await;
    let mut bytes = vec![];
    if let Ok(mut late) = try_dial(&enclave).await {
        soon(late.read_to_end(&mut bytes)).await.unwrap_or_default();
    }
    assert_eq!(bytes, b"");
    counts(&enclave, IngressCounters { accepted: 1, refused: 1, ..IngressCounters::default() }).await;
}

#[tokio::test]
async fn another_programs_port_neither_makes_a_service_ready_nor_gets_its_clients() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap().port();
    let entry = Ingress { port: PORT, service: "web".into(), target, proxy_protocol: false };
    let web = Service { ready: Ready::Tcp(target), ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&Manifest { ingress: vec![entry], ..manifest(vec![web]) });
    let mut host = enclave.host().await;
    let waits = format!("TCP port {target}: the listener on 127.0.0.1:{target} does not belong to web");
    host.until(|s| s.services.first().is_some_and(|web| web.waits_for.as_ref() == Some(&waits))).await;
    let mut bytes = vec![];
    soon(dial(&enclave).await.read_to_end(&mut bytes)).await.unwrap_or_default();
    assert_eq!(bytes, b"");
    assert!(tokio::time::timeout(std::time::Duration::ZERO, server.accept()).await.is_err());
    // As if the service had been the listener, from its next start on.
    enclave.init.number_cgroup("web", cloister_net::own_cgroup().unwrap());
    let mut local = enclave.local().await;
    let restart = Request::Service { service: "web".into(), verb: Verb::Restart };
    assert_eq!(local.request(restart).await, Reply::Done);
    let ready = host.until_ready().await;
    assert_eq!(ready.services[0].waits_for, None);
}

#[tokio::test]
async fn the_manifests_ports_are_reserved_for_the_services() {
    let live = Live { check: Check::Tcp(7000), interval_ms: 10_000, timeout_ms: 1, threshold: 1 };
    let db = Service { live: Some(live), ..service("db", "exec sleep 1000") };
    let web = Service { ready: Ready::Tcp(9000), ..service("web", "exec sleep 1000") };
    let entry = |port, target| Ingress { port, service: "db".into(), target, proxy_protocol: false };
    let manifest = Manifest { ingress: vec![entry(1, 8000), entry(2, 9000)], ..manifest(vec![db, web]) };
    let enclave = Enclave::boot(&manifest);
    enclave.host().await.until(|s| s.state == State::Starting).await;
    let reserved = std::fs::read_to_string(enclave.path("proc/sys/net/ipv4/ip_local_reserved_ports"));
    assert_eq!(reserved.unwrap(), "7000,8000,9000");
}
