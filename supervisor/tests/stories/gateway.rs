//! Tests of the gateway's program: what continues while it or the supervisor is gone.

use cloister_manifest::model::Manifest;
use cloister_wire::control::{Exit, IngressCounters, Phase, Reply, Request, State, Status};
use cloister_wire::gateway::NAME;
use cloister_wire::logs::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::enclave::Enclave;
use crate::host::soon;
use crate::ingress::{END, counts, dial, served, try_dial};
use crate::manifest::{critical, manifest};

/// Sends four bytes from a client to its service.
async fn up(client: &mut UnixStream, service: &mut TcpStream) {
    client.write_all(b"\0\0\0\x04ping").await.unwrap();
    let mut bytes = [0; 4];
    soon(service.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

/// Sends four bytes from the service to its client.
async fn down(client: &mut UnixStream, service: &mut TcpStream) {
    service.write_all(b"pong").await.unwrap();
    let mut bytes = [0; 8];
    soon(client.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"\0\0\0\x04pong");
}

/// A connection forwarded to the service.
async fn connected(enclave: &Enclave, server: &TcpListener) -> (UnixStream, TcpStream) {
    let mut client = dial(enclave).await;
    let (mut service, _) = soon(server.accept()).await.unwrap();
    up(&mut client, &mut service).await;
    (client, service)
}

async fn ends(mut client: UnixStream, service: TcpStream) {
    drop(service);
    client.write_all(END).await.unwrap();
    // The host's side closes when it has seen both ends.
    let mut end = [0; 4];
    soon(client.read_exact(&mut end)).await.unwrap();
    assert_eq!(end, END);
}

fn gateway_is(status: &Status, phase: Phase, restarts: u32) -> bool {
    status.servants.first().is_some_and(|gateway| {
        (gateway.name.as_str(), gateway.phase, gateway.restarts) == (NAME, phase, restarts)
    })
}

#[tokio::test]
async fn connections_continue_and_are_accepted_without_a_supervisor() {
    let (mut enclave, server) = served().await;
    enclave.host().await.until(|s| gateway_is(s, Phase::Ready, 0)).await;
    let pid = enclave.init.running()[NAME];
    let (mut before, mut before_service) = connected(&enclave, &server).await;
    enclave.crash();
    down(&mut before, &mut before_service).await;
    up(&mut before, &mut before_service).await;
    let (mut meanwhile, mut meanwhile_service) = connected(&enclave, &server).await;
    down(&mut meanwhile, &mut meanwhile_service).await;
    enclave.start_supervisor();
    enclave.host().await.until(|s| gateway_is(s, Phase::Ready, 0)).await;
    assert_eq!(enclave.init.running()[NAME], pid);
    down(&mut before, &mut before_service).await;
    down(&mut meanwhile, &mut meanwhile_service).await;
    counts(&enclave, IngressCounters { accepted: 2, open: 2, bytes_in: 12, bytes_out: 16, refused: 0 }).await;
    ends(before, before_service).await;
    ends(meanwhile, meanwhile_service).await;
    counts(&enclave, IngressCounters { accepted: 2, open: 0, bytes_in: 12, bytes_out: 16, refused: 0 }).await;
}

#[tokio::test]
async fn a_gateway_that_dies_loses_its_connections_and_is_restarted_at_once() {
    let (enclave, server) = served().await;
    let mut host = enclave.host().await;
    host.until(|s| s.state == State::Ready && gateway_is(s, Phase::Ready, 0)).await;
    let (mut lost, _service) = connected(&enclave, &server).await;
    counts(&enclave, IngressCounters { accepted: 1, open: 1, bytes_in: 4, ..IngressCounters::default() })
        .await;
    // Statuses within a few milliseconds are sent as one, so the restart takes longer here than it does.
    enclave.init.hold_back_starts();
    enclave.init.kill(NAME);
    assert!(matches!(soon(lost.read(&mut [0])).await, Ok(0) | Err(_)));
    let degraded = host.until(|s| matches!(s.state, State::Degraded { .. })).await;
    let why = "@gateway is restarting after signal 9 SIGKILL".to_owned();
    assert_eq!(degraded.state, State::Degraded { why });
    // A connection that arrives before the restart waits in the listen queue.
    let restart = async { enclave.init.report_starts() };
    let ((client, service), ()) = tokio::join!(connected(&enclave, &server), restart);
    let back = host.until(|s| s.state == State::Ready && gateway_is(s, Phase::Ready, 1)).await;
    assert!(matches!(back.servants[0].last_exit, Some(Exit::Signal { signal: 9, .. })));
    ends(client, service).await;
    counts(&enclave, IngressCounters { accepted: 2, bytes_in: 8, ..IngressCounters::default() }).await;
    let log = enclave.logs(0, true).await.until(NAME, Stream::Supervisor, "ended").await;
    assert!(log.contains("ended: signal 9 SIGKILL"), "{log}");
}

#[tokio::test]
async fn a_gateway_that_dies_repeatedly_is_restarted_later_and_the_state_reports_it() {
    let (enclave, server) = served().await;
    let mut host = enclave.host().await;
    for restarts in 0..3 {
        host.until(|s| gateway_is(s, Phase::Ready, restarts)).await;
        enclave.init.kill(NAME);
    }
    let many = host.until(|s| gateway_is(s, Phase::Ready, 3)).await;
    let why = "@gateway ended 3 times within 60 s".to_owned();
    assert_eq!(many.state, State::Degraded { why });
    assert!(host.seen.iter().any(|s| gateway_is(s, Phase::BackingOff, 1)));
    let (client, service) = connected(&enclave, &server).await;
    ends(client, service).await;
}

#[tokio::test]
async fn both_may_die_at_once_and_a_drain_continues() {
    let (mut enclave, server) = served().await;
    let mut host = enclave.host().await;
    host.until(|s| gateway_is(s, Phase::Ready, 0)).await;
    let (client, _service) = connected(&enclave, &server).await;
    counts(&enclave, IngressCounters { accepted: 1, open: 1, bytes_in: 4, ..IngressCounters::default() })
        .await;
    assert_eq!(host.request(Request::Drain).await, Reply::Done);
    enclave.crash();
    enclave.init.kill(NAME);
    drop(client);
    enclave.start_supervisor();
    let mut host = enclave.host().await;
    host.until(|s| gateway_is(s, Phase::Ready, 1)).await;
    // The connection may already be closed when the client sends its header.
    if let Ok(mut late) = try_dial(&enclave).await {
        assert!(matches!(soon(late.read(&mut [0])).await, Ok(0) | Err(_)));
    }
    let counted = IngressCounters { accepted: 1, refused: 1, bytes_in: 4, ..IngressCounters::default() };
    counts(&enclave, counted).await;
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    assert!(matches!(host.final_state().await, State::Signaled { signal: 15, .. }));
}

#[tokio::test]
async fn a_stop_waits_for_a_connection_that_survived_a_crash_of_the_supervisor() {
    let (mut enclave, server) = served().await;
    enclave.host().await.until(|s| gateway_is(s, Phase::Ready, 0)).await;
    let (mut client, mut service) = connected(&enclave, &server).await;
    enclave.crash();
    enclave.start_supervisor();
    let mut host = enclave.host().await;
    host.until_ready().await;
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    host.until(|s| matches!(s.state, State::Stopping { .. })).await;
    down(&mut client, &mut service).await;
    assert_eq!(host.request(Request::Ping).await, Reply::Done);
    assert_eq!(host.seen.last().unwrap().services[0].phase, Phase::Ready, "the stop waits");
    ends(client, service).await;
    assert!(matches!(host.final_state().await, State::Signaled { signal: 15, .. }));
}

#[tokio::test]
async fn without_ingress_there_is_no_gateway() {
    let enclave = Enclave::boot(&Manifest { ..manifest(vec![critical("web", "exec sleep 1000")]) });
    let status = enclave.host().await.until_ready().await;
    assert_eq!(status.servants, []);
    assert_eq!(enclave.init.running().len(), 1);
    assert!(!enclave.path("ingress").exists());
    let reply = enclave.host().await.request(Request::Inspect { service: NAME.into() }).await;
    assert!(matches!(reply, Reply::Refused { why } if why.contains("has no service \"@gateway\"")));
}
