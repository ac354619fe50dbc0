//! The relay over socket pairs and TCP: any split of the bytes, ends, breaks and deadlines.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use cloister_wire::chunks;
use cloister_wire::ingress::{CHUNK_LIMIT, Framing};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;

/// Long enough never to matter.
const LONG: Duration = Duration::from_hours(1);

fn options() -> Options {
    Options { idle: LONG, first_byte: LONG, ..Options::new(Framing::Chunked) }
}

/// Two ends of a boundary: one for a relay.
fn boundary() -> (Stream, StdUnixStream) {
    let (near, far) = StdUnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (Stream::over_device(near.into()).unwrap(), far)
}

/// A TCP connection: one end for a relay, one for the test.
async fn local() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = Stream::connect_tcp(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn run(boundary: Stream, local: Stream, works: Arc<Works>, options: Options) -> JoinHandle<Outcome> {
    tokio::spawn(async move { relay(&boundary, &local, &works, options).await })
}

/// A client and a service with a host's relay and an enclave's between them.
struct Path {
    client: TcpStream,
    service: TcpStream,
    works: Arc<Works>,
    host: JoinHandle<Outcome>,
    guest: JoinHandle<Outcome>,
}

async fn path() -> Path {
    let (host_boundary, guest_boundary) = boundary();
    let guest_boundary = Stream::over_device(guest_boundary.into()).unwrap();
    let (host_local, client) = local().await;
    let (guest_local, service) = local().await;
    let works = Arc::new(Works::new());
    let host = run(host_boundary, host_local, Arc::clone(&works), options());
    let closing = Options { closes_last: true, ..options() };
    let guest = run(guest_boundary, guest_local, Arc::clone(&works), closing);
    Path { client, service, works, host, guest }
}

/// Bytes that differ from their neighbours and from those a buffer's length away.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}

async fn speak(socket: TcpStream, pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let (mut reader, mut writer) = socket.into_split();
    let talk = async move {
        for piece in pieces {
            writer.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(talk, reader.read_to_end(&mut received));
    assert_eq!(read.map(|_| ()).map_err(|error| error.kind()), Ok(()));
    received
}

async fn both_ways(up: &[usize], down: &[usize]) {
    let path = path().await;
    let [up, down] = [up, down].map(|lengths| lengths.iter().map(|l| pattern(*l)).collect::<Vec<_>>());
    let (sent, answered) = (up.concat(), down.concat());
    let (at_client, at_service) = tokio::join!(speak(path.client, down), speak(path.service, up));
    assert!(at_client == sent && at_service == answered, "bytes were lost, added or moved");
    for outcome in [path.host.await.unwrap(), path.guest.await.unwrap()] {
        assert!(matches!(outcome.end, End::Finished), "{:?}", outcome.end);
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![1usize..100, 4000usize..5000, 30_000usize..40_000, 100_000usize..400_000];
    prop::collection::vec(length, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_in_any_pieces_arrive_whole_and_in_order(up in pieces(), down in pieces()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(both_ways(&up, &down));
    }
}

#[tokio::test]
async fn an_answer_arrives_after_the_request_has_ended() {
    let mut path = path().await;
    path.client.write_all(b"question").await.unwrap();
    path.client.shutdown().await.unwrap();
    let mut received = String::new();
    path.service.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "question");
    path.service.write_all(b"answer").await.unwrap();
    drop(path.service);
    received.clear();
    path.client.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "answer");
}

#[tokio::test]
async fn a_service_that_has_ended_its_output_can_still_receive() {
    let mut path = path().await;
    path.service.shutdown().await.unwrap();
    assert_eq!(path.client.read(&mut [0; 8]).await.unwrap(), 0);
    path.client.write_all(b"still here").await.unwrap();
    let mut received = [0; 10];
    path.service.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"still here");
}

#[tokio::test]
async fn a_peer_that_closes_without_an_end_is_a_break() {
    let (near, far) = boundary();
    let (inside, mut service) = local().await;
    let relay = run(near, inside, Arc::new(Works::new()), options());
    let mut far = UnixStream::from_std(far).unwrap();
    far.write_all(b"\0\0\0\x08the last").await.unwrap();
    drop(far);
    // The service sends nothing and does not close, and is not waited for.
    let outcome = relay.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Boundary, .. }), "{:?}", outcome.end);
    assert_eq!(read_until_reset(&mut service).await, b"the last");
}

#[tokio::test]
async fn a_full_flow_is_delivered_to_its_last_byte_before_the_break() {
    let (near, far) = boundary();
    let (inside, mut service) = local().await;
    let relay = run(near, inside, Arc::new(Works::new()), options());
    let mut far = UnixStream::from_std(far).unwrap();
    let sent = pattern(6 * CHUNK_LIMIT);
    let mut bytes = Vec::new();
    for piece in sent.chunks(CHUNK_LIMIT) {
        bytes.extend(chunks::header(piece.len()).unwrap());
        bytes.extend(piece);
    }
    far.write_all(&bytes).await.unwrap();
    drop(far);
    assert!(read_until_reset(&mut service).await == sent, "bytes were lost with the break");
    let outcome = relay.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Boundary, .. }), "{:?}", outcome.end);
}

#[tokio::test]
async fn a_peer_that_closes_after_its_end_is_not_waited_for() {
    let (near, far) = boundary();
    let (inside, mut service) = local().await;
    let relay = run(near, inside, Arc::new(Works::new()), Options { closes_last: true, ..options() });
    let mut far = UnixStream::from_std(far).unwrap();
    far.write_all(b"\0\0\0\x08question\0\0\0\0").await.unwrap();
    let mut received = String::new();
    service.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "question");
    // The client disconnected before the service answered.
    drop(far);
    let outcome = relay.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Boundary, .. }), "{:?}", outcome.end);
    let ready = service.ready(tokio::io::Interest::READABLE | tokio::io::Interest::ERROR).await.unwrap();
    assert!(ready.is_error() || ready.is_write_closed(), "{ready:?}");
}

#[tokio::test]
async fn an_answer_sent_before_the_end_of_the_request_arrives() {
    // As much as its own kernel has sent before the service closes.
    for answer in [vec![b'4'; 15], pattern(20_000)] {
        let path = path().await;
        let (mut reader, mut writer) = path.client.into_split();
        let upload = tokio::spawn(async move { while writer.write_all(&[b'x'; 16_000]).await.is_ok() {} });
        let mut service = path.service;
        service.read_exact(&mut [0; 1024]).await.unwrap();
        let (mut received, length) = (Vec::new(), answer.len());
        let answering = async {
            service.write_all(&answer).await.unwrap();
            // Closed with bytes unread: a reset.
            drop(service);
        };
        let mut whole = vec![0; length];
        let ((), read) = tokio::join!(answering, reader.read_exact(&mut whole));
        read.unwrap();
        assert!(whole == answer, "the answer came in pieces");
        // Whether the client sees the reset when it writes or when it reads is a race, as on any network.
        drop(reader.read_to_end(&mut received).await);
        assert_eq!(received, b"");
        upload.await.unwrap();
        for outcome in [path.host.await.unwrap(), path.guest.await.unwrap()] {
            assert!(matches!(outcome.end, End::Broken { .. }), "{:?}", outcome.end);
        }
    }
}

#[tokio::test]
async fn a_service_that_answers_and_closes_stops_the_client() {
    let path = path().await;
    let (mut reader, mut writer) = path.client.into_split();
    let upload = tokio::spawn(async move { while writer.write_all(&[b'x'; 16_000]).await.is_ok() {} });
    let mut service = path.service;
    service.read_exact(&mut [0; 1024]).await.unwrap();
    service.write_all(b"HTTP/1.1 413").await.unwrap();
    service.shutdown().await.unwrap();
    let mut received = String::new();
    reader.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "HTTP/1.1 413");
    assert!(!upload.is_finished());
    drop(service);
    upload.await.unwrap();
    let outcome = path.guest.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Local, .. }), "{:?}", outcome.end);
    let outcome = path.host.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Boundary, .. }), "{:?}", outcome.end);
}

#[tokio::test]
async fn an_answer_cut_off_by_a_reset_does_not_look_complete() {
    for length in [11, 100_000] {
        let path = path().await;
        let mut service = path.service;
        let mut client = path.client;
        client.write_all(&[b'x'; 4096]).await.unwrap();
        service.read_exact(&mut [0; 4096]).await.unwrap();
        service.write_all(&pattern(length)).await.unwrap();
        client.read_exact(&mut vec![0; length]).await.unwrap();
        service.set_zero_linger().unwrap();
        drop(service);
        assert_eq!(read_until_reset(&mut client).await, b"");
    }
}

#[tokio::test]
async fn an_aborted_relay_is_a_break_to_both_sides() {
    for host_dies in [true, false] {
        let path = path().await;
        let (mut client, mut service) = (path.client, path.service);
        client.write_all(b"?").await.unwrap();
        service.read_exact(&mut [0]).await.unwrap();
        service.write_all(b"half an answer").await.unwrap();
        client.read_exact(&mut [0; 14]).await.unwrap();
        // What the kernel does with the sockets of a process that is killed.
        (if host_dies { path.host } else { path.guest }).abort();
        assert_eq!(read_until_reset(&mut client).await, b"");
        assert_eq!(read_until_reset(&mut service).await, b"");
    }
}

#[tokio::test]
async fn a_complete_answer_survives_an_aborted_relay() {
    let path = path().await;
    let (mut client, mut service) = (path.client, path.service);
    client.write_all(b"?").await.unwrap();
    service.read_exact(&mut [0]).await.unwrap();
    service.write_all(b"a whole answer").await.unwrap();
    service.shutdown().await.unwrap();
    client.read_exact(&mut [0; 14]).await.unwrap();
    assert_eq!(client.peek(&mut [0]).await.unwrap(), 0);
    path.host.abort();
    path.guest.await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_reset_is_a_reset_to_the_service() {
    let path = path().await;
    let (mut client, mut service) = (path.client, path.service);
    client.write_all(b"half a quest").await.unwrap();
    service.read_exact(&mut [0; 12]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(read_until_reset(&mut service).await, b"");
}

/// The bytes before the expected reset.
async fn read_until_reset(socket: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let error = socket.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    received
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_does_not_end_times_out() {
    let (near, far) = boundary();
    let mut far = UnixStream::from_std(far).unwrap();
    let (inside, service) = StdUnixStream::pair().unwrap();
    inside.set_nonblocking(true).unwrap();
    service.shutdown(std::net::Shutdown::Read).unwrap();
    let start = Instant::now();
    let relay = run(near, Stream::local(inside.into()).unwrap(), Arc::new(Works::new()), options());
    far.write_all(b"\0\0\0\x01?").await.unwrap();
    let outcome = relay.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Local, .. }), "{:?}", outcome.end);
    assert_eq!(start.elapsed(), DRAIN);
}

#[tokio::test]
async fn a_service_reset_is_a_reset_to_the_client() {
    let mut path = path().await;
    path.service.write_all(b"half an ans").await.unwrap();
    let mut received = [0; 11];
    path.client.read_exact(&mut received).await.unwrap();
    path.service.set_zero_linger().unwrap();
    drop(path.service);
    let error = path.client.read(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let outcome = path.host.await.unwrap();
    assert!(matches!(outcome.end, End::Broken { side: Side::Boundary, .. }), "{:?}", outcome.end);
}

#[tokio::test]
async fn a_peer_that_does_not_send_chunks_is_refused() {
    let (near, far) = boundary();
    let (inside, mut service) = local().await;
    let relay = run(near, inside, Arc::new(Works::new()), options());
    UnixStream::from_std(far).unwrap().write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let End::Broken { side: Side::Boundary, error } = relay.await.unwrap().end else {
        panic!("the relay went on")
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(service.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_lead_goes_ahead_of_early_bytes() {
    let (near, far) = boundary();
    let (inside, mut service) = local().await;
    let early = b"\0\0\0\x06early \0\0".to_vec();
    let given = Options { lead_in: b"lead ".to_vec(), early, ..options() };
    let works = Arc::new(Works::new());
    let relay = run(near, inside, Arc::clone(&works), given);
    let mut far = UnixStream::from_std(far).unwrap();
    far.write_all(b"\0\x04late\0\0\0\0").await.unwrap();
    let mut received = String::new();
    service.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "lead early late");
    drop(service);
    assert_eq!(relay.await.unwrap().from_boundary, 10);
    assert_eq!((works.from_boundary(), works.from_local()), (10, 0));
}

#[tokio::test]
async fn a_header_and_the_first_bytes_leave_in_one_write() {
    let (near, far) = boundary();
    let (inside, mut client) = local().await;
    client.write_all(b"hello").await.unwrap();
    inside.recv(&mut []).await.unwrap();
    let given = Options { lead_out: b"header".to_vec(), ..options() };
    let _relay = run(near, inside, Arc::new(Works::new()), given);
    let mut received = [0; 64];
    let count = UnixStream::from_std(far).unwrap().read(&mut received).await.unwrap();
    assert_eq!(received[..count], *b"header\0\0\0\x05hello");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_first_byte_is_closed() {
    let (near, _far) = boundary();
    let (inside, _service) = local().await;
    let given = Options { first_byte: Duration::from_secs(10), ..options() };
    let start = Instant::now();
    let outcome = run(near, inside, Arc::new(Works::new()), given).await.unwrap();
    assert!(matches!(outcome.end, End::NoData));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (near, _far) = boundary();
    let (inside, _service) = local().await;
    let early = b"\0\0\0\x01x".to_vec();
    let given = Options { idle: Duration::from_mins(1), early, ..options() };
    let start = Instant::now();
    let outcome = run(near, inside, Arc::new(Works::new()), given).await.unwrap();
    assert!(matches!(outcome.end, End::Idle));
    assert_eq!(start.elapsed(), LONG + Duration::from_mins(1));
}

#[test]
fn a_busy_connection_is_not_idle() {
    let mut watch = Watch::new(&options());
    assert!((1..100).all(|carried| watch.check(carried).is_none()));
    assert!((1..CHECKS).all(|_| watch.check(99).is_none()));
    assert!(matches!(watch.check(99), Some(End::Idle)));
}

#[tokio::test]
async fn an_idle_relay_holds_no_pipe_and_little_memory() {
    let mut path = path().await;
    let (up, down) = (pattern(2 << 20), pattern(3 << 20));
    path.client.write_all(&[0]).await.unwrap();
    path.service.read_exact(&mut [0]).await.unwrap();
    let mut received = (vec![0; up.len()], vec![0; down.len()]);
    let (mut client, mut service) = (path.client.split(), path.service.split());
    let (a, b, c, d) = tokio::join!(
        client.1.write_all(&up),
        service.1.write_all(&down),
        service.0.read_exact(&mut received.0),
        client.0.read_exact(&mut received.1),
    );
    assert!(a.and(b).is_ok() && c.and(d).is_ok());
    assert!(received.0 == up && received.1 == down);
    // The relays have delivered everything, and one turn later they wait.
    tokio::task::yield_now().await;
    assert_eq!(path.works.pipes.on_loan(), 0);
    let (near, _far) = boundary();
    let waiting = relay(&near, &near, &path.works, options());
    assert!(size_of_val(&waiting) < 1024, "{} bytes a relay", size_of_val(&waiting));
}

#[tokio::test]
async fn a_line_is_read_and_nothing_after_it() {
    let (near, far) = boundary();
    let mut far = UnixStream::from_std(far).unwrap();
    let line = tokio::spawn(async move { (near.recv_line(16).await, near) });
    for piece in ["OK ", "107", "\nbytes"] {
        far.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (line, near) = line.await.unwrap();
    assert_eq!(line.unwrap(), b"OK 107\n");
    assert_eq!(near.recv_some(64).await.unwrap(), b"bytes");
    far.write_all(b"sixteen bytes, no newline").await.unwrap();
    assert_eq!(near.recv_line(16).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}
