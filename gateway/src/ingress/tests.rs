//! Tests of the ingress service over a Unix socket instead of a vsock.

use std::os::unix::net::UnixListener;

use cloister_net::own_cgroup;
use cloister_net::packets::{Packets, pair};
use cloister_wire::frame;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use cloister_wire::terminator::HandOver;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use super::*;

/// A running ingress with two ports, 80 and 81, and the service behind both; and perhaps a port of the
/// attestation server, and the terminator's end.
struct Fixture {
    attestation: Option<u16>,
    terminator: Option<Packets>,
    folder: TempDir,
    ingress: Ingress,
    service: TcpListener,
    target: u16,
    proxy_protocol: bool,
    messages: mpsc::Receiver<FromGateway>,
}

async fn fixture(capacity: usize, proxy_protocol: bool) -> Fixture {
    fixture_with(capacity, proxy_protocol, None).await
}

async fn fixture_with(capacity: usize, proxy_protocol: bool, attestation: Option<u16>) -> Fixture {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().port();
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = pair().unwrap();
    let (ingress, messages) = Ingress::new(capacity, Some(ours));
    let terminator = Some(Packets::new(theirs).unwrap());
    let listener = UnixListener::bind(folder.path().join("vsock")).unwrap();
    let listener = Listener::inherited(listener.into(), false).unwrap();
    drop(tokio::spawn({
        let ingress = ingress.clone();
        async move { ingress.serve(listener).await }
    }));
    let fixture =
        Fixture { attestation, terminator, folder, ingress, service, target, proxy_protocol, messages };
    // This process is the service.
    fixture.set_owner(Some(own_cgroup().unwrap()));
    fixture
}

impl Fixture {
    async fn dial(&self, port: u16, then: &[u8]) -> UnixStream {
        self.dial_raw(&header(port, then)).await
    }

    async fn dial_raw(&self, bytes: &[u8]) -> UnixStream {
        let mut host = UnixStream::connect(self.folder.path().join("vsock")).await.unwrap();
        host.write_all(bytes).await.unwrap();
        host
    }

    async fn refusal(&mut self, bytes: &[u8]) -> String {
        let mut host = self.dial_raw(bytes).await;
        let closed = host.read(&mut [0]).await;
        assert!(closed.is_err() || closed.is_ok_and(|count| count == 0), "not closed");
        match self.messages.recv().await.unwrap() {
            FromGateway::Refused { line } => line,
            other => panic!("{other:?}"),
        }
    }

    /// The supervisor's update of the service's cgroup.
    fn set_owner(&self, cgroup: Option<u64>) {
        let (target, proxy_protocol) = (self.target, self.proxy_protocol);
        let entry = |port| Target { port, target, service: "web".into(), cgroup, proxy_protocol };
        self.ingress.set_table([80, 81].map(entry).into(), self.attestation);
    }
}

/// A connection's first bytes.
fn header(port: u16, then: &[u8]) -> Vec<u8> {
    let client = Some("192.0.2.7:50000".parse().unwrap());
    let header = Header { version: cloister_wire::hello::VERSION, port, client, framing: Framing::Chunked };
    let mut bytes = frame::encode(&header, HEADER_LIMIT).unwrap();
    bytes.extend(then);
    bytes
}

#[tokio::test]
async fn a_connection_is_forwarded_to_the_service_and_counted() {
    let fixture = fixture(4, false).await;
    let mut host = fixture.dial(80, b"\0\0\0\x06early ").await;
    host.write_all(b"\0\0\0\x04late\0\0\0\0").await.unwrap();
    let (mut service, _) = fixture.service.accept().await.unwrap();
    let mut received = String::new();
    service.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "early late");
    service.write_all(b"answer").await.unwrap();
    assert_eq!(fixture.ingress.counters().open, 1);
    drop(service);
    let mut answer = [0; 14];
    host.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x06answer\0\0\0\0");
    drop(host);
    fixture.ingress.empty().await;
    let counters = fixture.ingress.counters();
    let expected = IngressCounters { accepted: 1, open: 0, refused: 0, bytes_in: 10, bytes_out: 6 };
    assert_eq!(counters, expected);
}

#[tokio::test]
async fn a_connection_to_the_port_of_the_attestation_server_is_handed_to_the_terminator() {
    let fixture = fixture_with(6, false, Some(443)).await;
    let mut host = fixture.dial(443, b"\0\0\0\x05hello\0\0\0\0").await;
    let (HandOver::Client, mut fds) = fixture.terminator.as_ref().unwrap().next(&mut [0; 64]).await.unwrap();
    let mut handed = Stream::local(fds.pop().unwrap()).unwrap();
    let mut received = String::new();
    handed.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "hello");
    handed.write_all(b"answer").await.unwrap();
    drop(handed);
    let mut answer = [0; 14];
    host.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x06answer\0\0\0\0");
    drop(host);
    fixture.ingress.empty().await;
    let counters = fixture.ingress.counters();
    assert_eq!((counters.accepted, counters.bytes_in, counters.bytes_out), (1, 5, 6));
}

#[tokio::test]
async fn a_connection_that_the_terminator_cannot_be_given_is_refused() {
    let mut fixture = fixture_with(6, false, Some(443)).await;
    drop(fixture.terminator.take());
    let line = fixture.refusal(&header(443, b"")).await;
    assert!(line.contains("ingress port 443: cannot pass the connection to the terminator"), "{line}");
}

#[tokio::test]
async fn a_service_can_request_its_clients_address() {
    let fixture = fixture(4, true).await;
    let _host = fixture.dial(80, b"\0\0\0\x02hi").await;
    let (mut service, _) = fixture.service.accept().await.unwrap();
    let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xc3\x50\0\x50hi";
    let mut received = [0; 30];
    service.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, expected);
}

#[tokio::test]
async fn a_port_that_is_not_in_the_manifest_is_refused() {
    let mut fixture = fixture(4, false).await;
    let header =
        frame::encode_bytes(br#"{"version":3,"port":22,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    assert!(fixture.refusal(&header).await.contains("ingress port 22 leads to nothing"));
    assert_eq!(fixture.ingress.counters().refused, 1);
}

#[tokio::test]
async fn an_invalid_header_is_refused() {
    let mut fixture = fixture(4, false).await;
    assert!(
        fixture.refusal(b"GET / HTTP/1.1\r\n\r\n").await.contains("exceeds this channel's limit of 1024")
    );
    let future =
        frame::encode_bytes(br#"{"version":4,"port":80,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    assert!(fixture.refusal(&future).await.contains("uses version 3"));
    let path = br#"{"version":3,"port":80,"framing":"chunked","path":"/etc"}"#;
    let path = frame::encode_bytes(path, HEADER_LIMIT).unwrap();
    assert!(fixture.refusal(&path).await.contains("unknown field `path`"));
}

#[tokio::test]
async fn a_service_that_does_not_listen_is_logged() {
    let mut fixture = fixture(4, false).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(std::mem::replace(&mut fixture.service, free));
    let header =
        frame::encode_bytes(br#"{"version":3,"port":80,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    let target = fixture.target;
    let why = format!(
        "ingress port 80: cannot connect to the service on TCP port {target}: nothing listens on 127.0.0.1:{target} or [::1]:{target}"
    );
    assert!(fixture.refusal(&header).await.ends_with(&why));
}

#[tokio::test]
async fn a_port_that_another_program_uses_is_refused() {
    let mut fixture = fixture(4, false).await;
    for owner in [Some(own_cgroup().unwrap() + 1), None] {
        fixture.set_owner(owner);
        for then in [&b"early"[..], b""] {
            assert!(fixture.refusal(&header(80, then)).await.ends_with("does not belong to web"));
        }
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), fixture.service.accept()).await.is_err());
}

#[tokio::test]
async fn a_connection_waits_for_the_cgroup_of_a_service_that_has_just_started() {
    let fixture = fixture(4, false).await;
    fixture.set_owner(None);
    let mut host = fixture.dial(80, b"\0\0\0\x02hi").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.set_owner(Some(own_cgroup().unwrap()));
    let (mut service, _) = fixture.service.accept().await.unwrap();
    service.write_all(b"yes").await.unwrap();
    let mut answer = [0; 7];
    host.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x03yes");
}

#[tokio::test]
async fn no_connection_is_accepted_before_the_table_arrives() {
    let folder = TempDir::new().unwrap();
    let (ingress, _messages) = Ingress::new(4, None);
    let listener = UnixListener::bind(folder.path().join("vsock")).unwrap();
    let listener = Listener::inherited(listener.into(), false).unwrap();
    let serving = tokio::time::timeout(Duration::from_millis(50), ingress.serve(listener));
    let dialling = async {
        let mut host = UnixStream::connect(folder.path().join("vsock")).await.unwrap();
        host.write_all(&header(80, b"")).await.unwrap();
        host
    };
    let (served, _host) = tokio::join!(serving, dialling);
    assert!(served.is_err());
    assert_eq!(ingress.counters(), IngressCounters::default());
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_immediately_and_the_others_continue() {
    // One for each port, and two that any port may use.
    let mut fixture = fixture(4, false).await;
    let mut first = fixture.dial(80, b"\0\0\0\x011").await;
    let (mut service, _) = fixture.service.accept().await.unwrap();
    let mut idle = vec![];
    for _ in 0..2 {
        idle.push((fixture.dial(80, b"").await, fixture.service.accept().await.unwrap()));
    }
    let refused = fixture.refusal(&header(80, b"")).await;
    assert!(refused.ends_with("connection limit of ingress port 80 reached"), "{refused}");
    service.write_all(b"2").await.unwrap();
    let mut received = [0; 5];
    first.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"\0\0\0\x012");
    // Another port has a reserved slot.
    let _other = fixture.dial(81, b"").await;
    fixture.service.accept().await.unwrap();
    assert_eq!(fixture.ingress.counters().open, 4);
}

#[tokio::test]
async fn connections_without_a_header_do_not_use_the_capacity_of_others() {
    let fixture = fixture(2, false).await;
    let mut silent = vec![];
    for _ in 0..8 {
        silent.push(fixture.dial_raw(b"\0").await);
    }
    let _host = fixture.dial(80, b"").await;
    fixture.service.accept().await.unwrap();
}

#[tokio::test]
async fn draining_refuses_new_connections_and_waits_for_the_open_ones() {
    let mut fixture = fixture(4, false).await;
    let mut open = fixture.dial(80, b"\0\0\0\x01x").await;
    let (service, _) = fixture.service.accept().await.unwrap();
    fixture.ingress.drain();
    assert!(fixture.refusal(&[]).await.contains("draining"));
    let waiting = tokio::time::timeout(Duration::ZERO, fixture.ingress.empty()).await;
    assert!(waiting.is_err());
    drop(service);
    assert_eq!(open.read(&mut [0; 8]).await.unwrap(), 4, "the end");
    drop(open);
    fixture.ingress.empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_sends_nothing_times_out() {
    let mut fixture = fixture(4, false).await;
    assert!(fixture.refusal(b"\0\0").await.contains("no header in time"));
}
