//! The ingress service over a Unix socket in the vsock's place.

use std::os::unix::net::UnixListener;

use cloister_net::own_cgroup;
use cloister_wire::frame;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use super::*;

/// A served ingress with two ports, 80 and 81, and the service behind both.
struct Bench {
    folder: TempDir,
    ingress: Ingress,
    service: TcpListener,
    target: u16,
    proxy_protocol: bool,
    told: mpsc::Receiver<FromGateway>,
}

async fn bench(room: usize, proxy_protocol: bool) -> Bench {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().port();
    let folder = TempDir::new().unwrap();
    let (ingress, told) = Ingress::new(room);
    let listener = UnixListener::bind(folder.path().join("vsock")).unwrap();
    let listener = Listener::inherited(listener.into(), false).unwrap();
    drop(tokio::spawn({
        let ingress = ingress.clone();
        async move { ingress.serve(listener).await }
    }));
    let bench = Bench { folder, ingress, service, target, proxy_protocol, told };
    // This process is the service.
    bench.learn(Some(own_cgroup().unwrap()));
    bench
}

impl Bench {
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
        assert!(closed.is_err() || closed.is_ok_and(|count| count == 0), "it was not closed");
        match self.told.recv().await.unwrap() {
            FromGateway::Refused { line } => line,
            other => panic!("{other:?}"),
        }
    }

    /// The supervisor's word of the service's cgroup.
    fn learn(&self, cgroup: Option<u64>) {
        let (target, proxy_protocol) = (self.target, self.proxy_protocol);
        let entry = |port| Target { port, target, service: "web".into(), cgroup, proxy_protocol };
        self.ingress.learn([80, 81].map(entry).into());
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
async fn a_connection_is_carried_to_the_service_and_counted() {
    let bench = bench(4, false).await;
    let mut host = bench.dial(80, b"\0\0\0\x06early ").await;
    host.write_all(b"\0\0\0\x04late\0\0\0\0").await.unwrap();
    let (mut service, _) = bench.service.accept().await.unwrap();
    let mut heard = String::new();
    service.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "early late");
    service.write_all(b"answer").await.unwrap();
    assert_eq!(bench.ingress.counters().open, 1);
    drop(service);
    let mut answer = [0; 14];
    host.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x06answer\0\0\0\0");
    drop(host);
    bench.ingress.empty().await;
    let counters = bench.ingress.counters();
    let expected = IngressCounters { accepted: 1, open: 0, refused: 0, bytes_in: 10, bytes_out: 6 };
    assert_eq!(counters, expected);
}

#[tokio::test]
async fn a_service_that_asks_for_it_learns_who_its_client_is() {
    let bench = bench(4, true).await;
    let _host = bench.dial(80, b"\0\0\0\x02hi").await;
    let (mut service, _) = bench.service.accept().await.unwrap();
    let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xc3\x50\0\x50hi";
    let mut heard = [0; 30];
    service.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, expected);
}

#[tokio::test]
async fn what_the_manifest_does_not_name_is_refused() {
    let mut bench = bench(4, false).await;
    let header =
        frame::encode_bytes(br#"{"version":3,"port":22,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    assert!(bench.refusal(&header).await.ends_with("the manifest has no ingress port 22"));
    assert_eq!(bench.ingress.counters().refused, 1);
}

#[tokio::test]
async fn a_header_that_is_none_is_refused() {
    let mut bench = bench(4, false).await;
    assert!(bench.refusal(b"GET / HTTP/1.1\r\n\r\n").await.contains("exceeds this channel's limit of 1024"));
    let future =
        frame::encode_bytes(br#"{"version":4,"port":80,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    assert!(bench.refusal(&future).await.contains("speaks version 4"));
    let path = br#"{"version":3,"port":80,"framing":"chunked","path":"/etc"}"#;
    let path = frame::encode_bytes(path, HEADER_LIMIT).unwrap();
    assert!(bench.refusal(&path).await.contains("unknown field `path`"));
}

#[tokio::test]
async fn a_service_that_does_not_listen_is_told_in_the_log() {
    let mut bench = bench(4, false).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(std::mem::replace(&mut bench.service, free));
    let header =
        frame::encode_bytes(br#"{"version":3,"port":80,"framing":"chunked"}"#, HEADER_LIMIT).unwrap();
    let target = bench.target;
    let why = format!(
        "ingress port 80: no service answers on TCP port {target}: nothing listens on 127.0.0.1:{target} or [::1]:{target}"
    );
    assert!(bench.refusal(&header).await.ends_with(&why));
}

#[tokio::test]
async fn a_port_that_another_program_has_is_not_the_services() {
    let mut bench = bench(4, false).await;
    for nobody in [Some(own_cgroup().unwrap() + 1), None] {
        bench.learn(nobody);
        for then in [&b"early"[..], b""] {
            assert!(bench.refusal(&header(80, then)).await.ends_with("does not belong to web"));
        }
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), bench.service.accept()).await.is_err());
}

#[tokio::test]
async fn a_service_that_listens_before_its_cgroup_is_known_here_is_waited_for() {
    let bench = bench(4, false).await;
    bench.learn(None);
    let mut host = bench.dial(80, b"\0\0\0\x02hi").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.learn(Some(own_cgroup().unwrap()));
    let (mut service, _) = bench.service.accept().await.unwrap();
    service.write_all(b"yes").await.unwrap();
    let mut answer = [0; 7];
    host.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x03yes");
}

#[tokio::test]
async fn nothing_is_accepted_before_there_is_a_table() {
    let folder = TempDir::new().unwrap();
    let (ingress, _told) = Ingress::new(4);
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
async fn one_over_the_cap_is_closed_at_once_and_the_others_go_on() {
    // One for each port, and two that any port may have.
    let mut bench = bench(4, false).await;
    let mut first = bench.dial(80, b"\0\0\0\x011").await;
    let (mut service, _) = bench.service.accept().await.unwrap();
    let mut idle = vec![];
    for _ in 0..2 {
        idle.push((bench.dial(80, b"").await, bench.service.accept().await.unwrap()));
    }
    let refused = bench.refusal(&header(80, b"")).await;
    assert!(refused.ends_with("connection limit of ingress port 80 reached"), "{refused}");
    service.write_all(b"2").await.unwrap();
    let mut heard = [0; 5];
    first.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"\0\0\0\x012");
    // Another port has room of its own.
    let _other = bench.dial(81, b"").await;
    bench.service.accept().await.unwrap();
    assert_eq!(bench.ingress.counters().open, 4);
}

#[tokio::test]
async fn connections_without_a_header_do_not_take_the_room_of_those_with_one() {
    let bench = bench(2, false).await;
    let mut silent = vec![];
    for _ in 0..8 {
        silent.push(bench.dial_raw(b"\0").await);
    }
    let _host = bench.dial(80, b"").await;
    bench.service.accept().await.unwrap();
}

#[tokio::test]
async fn draining_refuses_new_connections_and_waits_for_the_open_ones() {
    let mut bench = bench(4, false).await;
    let mut open = bench.dial(80, b"\0\0\0\x01x").await;
    let (service, _) = bench.service.accept().await.unwrap();
    bench.ingress.drain();
    assert!(bench.refusal(&[]).await.contains("draining"));
    let waiting = tokio::time::timeout(Duration::ZERO, bench.ingress.empty()).await;
    assert!(waiting.is_err());
    drop(service);
    assert_eq!(open.read(&mut [0; 8]).await.unwrap(), 4, "the end");
    drop(open);
    bench.ingress.empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_not_waited_for() {
    let mut bench = bench(4, false).await;
    assert!(bench.refusal(b"\0\0").await.contains("no header in time"));
}
