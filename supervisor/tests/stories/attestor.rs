//! Tests of the attestor's program, with `/dev/null` as its security module: a request that reaches the module fails
//! there.

use std::collections::BTreeMap;
use std::time::Duration;

use cloister_manifest::model::{Attestation, AttestationVerb, Manifest};
use cloister_wire::attestor::NAME;
use cloister_wire::control::{Exit, Phase, State, Status};
use cloister_wire::logs::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::enclave::Enclave;
use crate::host::soon;
use crate::manifest::{critical, manifest};

const REQUEST: &[u8] = b"GET /v1/random HTTP/1.1\r\nHost: attestor\r\n\r\n";

/// The response to a request that the manifest allows.
const REACHED: &str = "HTTP/1.1 502 Bad Gateway";

/// Service `web` may use the generator.
fn allowing() -> Manifest {
    let services = BTreeMap::from([("web".to_owned(), vec![AttestationVerb::Random])]);
    let services = Attestation { port: None, services };
    Manifest { attestation: services, ..manifest(vec![critical("web", "exec sleep 1000")]) }
}

fn attestor_is(status: &Status, phase: Phase, restarts: u32) -> bool {
    status.servants.first().is_some_and(|attestor| {
        (attestor.name.as_str(), attestor.phase, attestor.restarts) == (NAME, phase, restarts)
    })
}

async fn booted() -> Enclave {
    let enclave = Enclave::boot_with_module(&allowing());
    enclave.host().await.until(|s| s.state == State::Ready && attestor_is(s, Phase::Ready, 0)).await;
    enclave
}

/// A connection of a process in the cgroup of `service`.
fn connect(enclave: &Enclave, service: &str) -> UnixStream {
    enclave.init.join_cgroup(std::process::id(), service);
    let socket = std::os::unix::net::UnixStream::connect_addr(enclave.attestation()).unwrap();
    socket.set_nonblocking(true).unwrap();
    UnixStream::from_std(socket).unwrap()
}

/// Everything that the client receives after its request.
async fn request(mut client: UnixStream) -> String {
    client.write_all(REQUEST).await.unwrap();
    let mut bytes = Vec::new();
    soon(async { while let Ok(1..) = client.read_buf(&mut bytes).await {} }).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_service_is_identified_and_may_do_what_the_manifest_allows_it() {
    let enclave = booted().await;
    let reached = request(connect(&enclave, "web")).await;
    assert!(reached.starts_with(REACHED), "{reached}");
    assert!(reached.contains("cannot access the security module"), "{reached}");
    let refused = request(connect(&enclave, "other")).await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden"), "{refused}");
    assert!(refused.contains("in attestation.services.other"), "{refused}");
    let status = enclave.host().await.until_ready().await;
    assert!(attestor_is(&status, Phase::Ready, 0), "a module that fails is no reason to exit");
}

#[tokio::test]
async fn an_attestor_that_dies_is_restarted_and_clients_wait_for_it() {
    let enclave = booted().await;
    let mut host = enclave.host().await;
    host.until_ready().await;
    let mut lost = connect(&enclave, "web");
    lost.write_all(b"GET").await.unwrap();
    // This one was passed on after the other, and is answered.
    assert!(request(connect(&enclave, "web")).await.starts_with(REACHED));
    enclave.init.kill(NAME);
    assert!(matches!(soon(lost.read(&mut [0])).await, Ok(0) | Err(_)));
    let back = host.until(|s| s.state == State::Ready && attestor_is(s, Phase::Ready, 1)).await;
    assert!(matches!(back.servants[0].last_exit, Some(Exit::Signal { signal: 9, .. })));
    assert!(request(connect(&enclave, "web")).await.starts_with(REACHED));
}

#[tokio::test]
async fn a_client_that_the_dying_attestor_has_not_received_is_served_by_the_next_one() {
    let enclave = booted().await;
    enclave.init.suspend(NAME);
    let waiting = tokio::spawn(request(connect(&enclave, "web")));
    // Long enough for the supervisor to pass it on. Otherwise it does so after the restart.
    tokio::time::sleep(Duration::from_millis(300)).await;
    enclave.init.kill(NAME);
    let answered = waiting.await.unwrap();
    assert!(answered.starts_with(REACHED), "{answered:?}");
}

#[tokio::test]
async fn clients_are_served_while_the_supervisor_is_gone_or_wait_for_the_next_one() {
    let mut enclave = booted().await;
    let before = connect(&enclave, "web");
    // This one was passed on after the other, and is answered.
    assert!(request(connect(&enclave, "web")).await.starts_with(REACHED));
    enclave.crash();
    assert!(request(before).await.starts_with(REACHED));
    let meanwhile = tokio::spawn(request(connect(&enclave, "web")));
    enclave.start_supervisor();
    assert!(meanwhile.await.unwrap().starts_with(REACHED));
    let status = enclave.host().await.until_ready().await;
    assert!(attestor_is(&status, Phase::Ready, 0), "the attestor is the same");
}

#[tokio::test]
async fn a_supervisor_that_knows_nothing_of_the_attestor_does_not_replace_it() {
    let mut enclave = booted().await;
    let before = enclave.host().await.until_ready().await;
    enclave.crash();
    enclave.init.lose_state();
    enclave.start_supervisor();
    let after = enclave.host().await.until(|status| attestor_is(status, Phase::Ready, 0)).await;
    assert_eq!(after.servants[0].pid, before.servants[0].pid);
    assert!(request(connect(&enclave, "web")).await.starts_with(REACHED));
}

#[tokio::test]
async fn without_rules_or_without_a_module_there_is_no_attestor_and_its_address_is_taken() {
    let without_rules = manifest(vec![critical("web", "exec sleep 1000")]);
    for mut enclave in [Enclave::boot_with_module(&without_rules), Enclave::boot(&allowing())] {
        let status = enclave.host().await.until_ready().await;
        assert_eq!(status.servants, []);
        refuses(&enclave);
        enclave.crash();
        refuses(&enclave);
        enclave.start_supervisor();
        enclave.host().await.until_ready().await;
        refuses(&enclave);
    }
}

#[tokio::test]
async fn hardware_that_cannot_be_opened_is_reported_and_the_services_run() {
    let enclave = Enclave::boot_with_broken_module(&allowing());
    assert_eq!(enclave.host().await.until_ready().await.servants, []);
    let mut logs = enclave.logs(0, true).await;
    let line = "the provider of evidence cannot be opened: the driver is defective";
    logs.until("supervisor", Stream::Supervisor, line).await;
    refuses(&enclave);
    // It does not matter to a manifest that does not use it.
    let without_rules = manifest(vec![critical("web", "exec sleep 1000")]);
    let enclave = Enclave::boot_with_broken_module(&without_rules);
    enclave.host().await.until_ready().await;
}

#[tokio::test]
async fn on_a_machine_without_hardware_the_attestor_uses_the_sleeves_module() {
    let mut enclave = Enclave::boot_with_sleeve("virtual", &allowing());
    enclave.host().await.until(|s| s.state == State::Ready && attestor_is(s, Phase::Ready, 0)).await;
    let early = request(connect(&enclave, "web")).await;
    assert!(early.starts_with("HTTP/1.1 503 Service Unavailable"), "{early}");
    assert!(early.contains("the sleeve has not connected"), "{early}");
    expect_hello(&enclave).await;
    enclave.crash();
    enclave.start_supervisor();
    // The listener is the same, and so is the attestor. It has closed the first connection.
    expect_hello(&enclave).await;
    let status = enclave.host().await.until_ready().await;
    assert!(attestor_is(&status, Phase::Ready, 0), "{:?}", status.servants);
}

/// The attestor, and no other program, opens the module's channel on a connection of the sleeve.
async fn expect_hello(enclave: &Enclave) {
    let mut sleeve = UnixStream::connect(enclave.module()).await.unwrap();
    let mut hello = [0; 64];
    let count = soon(sleeve.read(&mut hello)).await.unwrap();
    let hello = String::from_utf8_lossy(&hello[..count]);
    assert!(hello.contains(r#""protocol":"security-module""#), "{hello}");
}

#[tokio::test]
async fn on_other_platforms_no_one_listens_for_the_sleeve() {
    for platform in ["nitro", "tdx", "snp"] {
        let enclave = Enclave::boot_with_sleeve(platform, &allowing());
        assert_eq!(enclave.host().await.until_ready().await.servants, [], "{platform}");
        let line = match platform {
            "tdx" => "platform tdx has no quotes: the kernel has no provider in configfs-tsm".to_owned(),
            other => format!("platform {other} has no provider of evidence that can be used"),
        };
        let mut logs = enclave.logs(0, true).await;
        logs.until("supervisor", Stream::Supervisor, &line).await;
        assert!(!enclave.module().exists(), "{platform}");
        refuses(&enclave);
    }
}

/// The address refuses connections, and no service can listen there.
fn refuses(enclave: &Enclave) {
    let connected = std::os::unix::net::UnixStream::connect_addr(enclave.attestation());
    assert_eq!(connected.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let bound = std::os::unix::net::UnixListener::bind_addr(enclave.attestation());
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
