//! Tests of requests: what the host may do, what programs inside may do, and misbehaving peers.

use cloister_manifest::model::{Control, ControlVerb, Manifest};
use cloister_wire::control::{Exit, Phase, Reply, Request, State, Time, TimeSource, Verb};
use cloister_wire::frame;
use cloister_wire::hello::{Hello, Protocol, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::enclave::Enclave;
use crate::host::{refused, soon};
use crate::manifest::{ADMIN, critical, manifest, service, until_term};

fn verb(verb: Verb) -> Request {
    Request::Service { service: "cache".into(), verb }
}

fn allowing(host: Vec<ControlVerb>) -> Manifest {
    let services = vec![service("cache", "exec sleep 1000"), critical("web", &until_term(0))];
    Manifest { control: Control { host, services: vec![ADMIN.into()] }, ..manifest(services) }
}

#[tokio::test]
async fn the_host_may_do_only_what_the_manifest_lists() {
    let enclave = Enclave::boot(&allowing(vec![ControlVerb::Restart]));
    let mut host = enclave.host().await;
    let before = host.until_ready().await.services[0].pid;
    assert!(
        matches!(host.request(verb(Verb::Stop)).await, Reply::Refused { why } if why.contains("control: [stop]"))
    );
    assert_eq!(host.request(verb(Verb::Restart)).await, Reply::Done);
    let after = host.until(|s| s.services[0].phase == Phase::Ready && s.services[0].pid != before).await;
    assert_eq!(after.services[0].restarts, 1);
    let signal = Request::Signal { service: "cache".into(), signal: 9 };
    assert!(matches!(host.request(signal).await, Reply::Refused { .. }));
}

#[tokio::test]
async fn a_program_inside_stops_and_starts_services() {
    let enclave = Enclave::boot(&allowing(vec![]));
    let mut local = enclave.local().await;
    local.until_ready().await;
    assert_eq!(local.request(verb(Verb::Stop)).await, Reply::Done);
    let stopped = local.until(|s| s.services[0].phase == Phase::Done).await;
    assert_eq!(stopped.state, State::Degraded { why: "cache is stopped".into() });
    assert_eq!(local.request(verb(Verb::Start)).await, Reply::Done);
    local.until_ready().await;
    let unknown = Request::Service { service: "nginx".into(), verb: Verb::Stop };
    let refused = Reply::Refused { why: "the manifest has no service \"nginx\"".into() };
    assert_eq!(local.request(unknown).await, refused);
}

#[tokio::test]
async fn connections_of_one_service_do_not_block_another() {
    let enclave = Enclave::boot(&allowing(vec![]));
    enclave.host().await.until_ready().await;
    enclave.init.join_cgroup(std::process::id(), "cache");
    let mut idle = vec![];
    for _ in 0..64 {
        idle.push(UnixStream::connect(enclave.path("local-control")).await.unwrap());
    }
    refused(idle.last_mut().unwrap()).await;
    enclave.host().await.until_ready().await;
    enclave.init.join_cgroup(std::process::id(), "web");
    enclave.local().await.until_ready().await;
}

#[tokio::test]
async fn every_program_inside_may_ask_whether_the_date_is_trusted() {
    let enclave = Enclave::boot(&allowing(vec![]));
    let status = enclave.host().await.until_ready().await;
    let host = Time { trusted: false, source: TimeSource::Host, bound_ms: None };
    assert_eq!(status.time, Some(host));
    enclave.init.join_cgroup(std::process::id(), "web");
    let mut line = String::new();
    UnixStream::connect(enclave.path("time")).await.unwrap().read_to_string(&mut line).await.unwrap();
    assert_eq!(line, "{\"trusted\":false,\"source\":\"host\"}\n");
}

#[tokio::test]
async fn a_service_that_is_not_named_is_refused_with_the_reason() {
    let enclave = Enclave::boot(&allowing(vec![]));
    enclave.host().await.until_ready().await;
    let mut stranger = enclave.local_of("web").await;
    let Reply::Refused { why } = stranger.refusal().await else { panic!("the request was accepted") };
    assert_eq!(
        why,
        "service \"web\" is not allowed to control services: the manifest's control.services does not list it"
    );
}

#[tokio::test]
async fn a_signal_reaches_the_main_process() {
    let enclave = Enclave::boot(&allowing(vec![ControlVerb::Signal]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    let signal = Request::Signal { service: "cache".into(), signal: 10 };
    assert_eq!(host.request(signal).await, Reply::Done);
    let status = host.until(|s| s.services[0].phase == Phase::Failed).await;
    assert!(matches!(status.services[0].last_exit, Some(Exit::Signal { signal: 10, .. })));
}

#[tokio::test]
async fn the_host_reads_a_services_confinement_and_usage() {
    let enclave = Enclave::boot(&allowing(vec![]));
    let cgroup = enclave.path("cgroups/web");
    std::fs::create_dir_all(&cgroup).unwrap();
    std::fs::write(cgroup.join("memory.current"), "4096\n").unwrap();
    let mut host = enclave.host().await;
    let pid = host.until_ready().await.services[1].pid.unwrap();
    assert_eq!(host.request(Request::Ping).await, Reply::Done);
    let Reply::Stats(stats) = host.request(Request::Stats).await else { panic!("no stats") };
    assert_eq!(stats.services.iter().map(|s| s.memory).collect::<Vec<_>>(), [0, 4096]);
    let Reply::Inspect(confinement) = host.request(Request::Inspect { service: "web".into() }).await else {
        panic!("no confinement")
    };
    assert_eq!((confinement.pid, confinement.uids), (pid, vec![0; 4]));
}

#[tokio::test]
async fn out_of_memory_kills_are_counted_after_their_cgroup_is_gone() {
    let enclave = Enclave::boot(&allowing(vec![ControlVerb::Signal]));
    let cgroup = enclave.path("cgroups/cache");
    std::fs::create_dir_all(&cgroup).unwrap();
    std::fs::write(cgroup.join("memory.events"), "oom_kill 3\noom_group_kill 1\n").unwrap();
    let mut host = enclave.host().await;
    host.until_ready().await;
    let signal = Request::Signal { service: "cache".into(), signal: 10 };
    assert_eq!(host.request(signal).await, Reply::Done);
    host.until(|s| s.services[0].phase == Phase::Failed).await;
    std::fs::remove_dir_all(&cgroup).unwrap();
    let Reply::Stats(stats) = host.request(Request::Stats).await else { panic!("no stats") };
    assert_eq!(stats.services[0].oom_kills, 2);
}

#[tokio::test]
async fn malformed_input_closes_only_its_own_connection() {
    let enclave = Enclave::boot(&allowing(vec![]));
    enclave.host().await.until_ready().await;
    let hello = frame::encode(&Hello::new(Protocol::Control, Role::Host), 1024).unwrap();
    let old =
        frame::encode(&Hello { version: 9, ..Hello::new(Protocol::Control, Role::Host) }, 1024).unwrap();
    let exec = frame::encode_bytes(br#"{"id":1,"request":{"type":"exec","argv":["sh"]}}"#, 1024).unwrap();
    let too_long = u32::MAX.to_be_bytes().to_vec();
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), old, [hello.clone(), exec].concat(), [hello, too_long].concat()]
    {
        let mut stream = UnixStream::connect(enclave.path("control")).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut rest = vec![];
        // Regardless of its earlier messages, it closes the connection.
        soon(stream.read_to_end(&mut rest)).await.unwrap_or_default();
    }
    enclave.host().await.until_ready().await;
}

#[tokio::test]
async fn excess_connections_are_closed_and_the_others_served() {
    let enclave = Enclave::boot(&allowing(vec![]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    let mut open = vec![];
    for _ in 0..100 {
        open.push(UnixStream::connect(enclave.path("control")).await.unwrap());
    }
    assert_eq!(host.request(Request::Ping).await, Reply::Done);
    drop(open);
}
