//! Published ports, with the two halves of a Unix socket pair in place of the enclave.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::transport::Pending;

/// A port at which each client may have one connection.
const LIMITED: u16 = 443;

/// A transport that refuses a given number of times, and then passes the other end to the test.
#[derive(Debug)]
struct Simulated {
    refusals: Mutex<u32>,
    /// The kind of error with which it refuses.
    kind: io::ErrorKind,
    enclave: mpsc::UnboundedSender<UnixStream>,
}

impl Transport for Simulated {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        assert_eq!(port, ports::INGRESS);
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Box::pin(async { Err(self.kind.into()) });
        }
        let (near, far) = StdUnixStream::pair().unwrap();
        for end in [&near, &far] {
            end.set_nonblocking(true).unwrap();
        }
        self.enclave.send(UnixStream::from_std(far).unwrap()).unwrap();
        Box::pin(async { Stream::over_device(near.into()) })
    }
}

/// A published port, and the connections that reach the enclave through it.
async fn publish(refusals: u32) -> (TcpStream, mpsc::UnboundedReceiver<UnixStream>) {
    let ([port], connections) = publish_all([80], refusals, io::ErrorKind::ConnectionRefused, MAX_CLIENTS);
    (TcpStream::connect(port).await.unwrap(), connections)
}

/// Published ports for at most `capacity` clients, and the connections that reach the enclave through them.
fn publish_all<const N: usize>(
    ports: [u16; N],
    refusals: u32,
    kind: io::ErrorKind,
    capacity: usize,
) -> ([SocketAddr; N], mpsc::UnboundedReceiver<UnixStream>) {
    let listeners = ports.map(|port| {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        Port { listener, ingress: port, most_per_client: (port == LIMITED).then_some(1) }
    });
    let addresses = listeners.each_ref().map(|port| port.listener.tcp_address().unwrap());
    let (enclave, connections) = mpsc::unbounded_channel();
    let transport = Arc::new(Simulated { refusals: Mutex::new(refusals), kind, enclave });
    drop(tokio::spawn(run(listeners.into(), capacity, transport)));
    (addresses, connections)
}

async fn header(enclave: &mut UnixStream) -> Header {
    let length = enclave.read_u32().await.unwrap();
    let mut body = vec![0; usize::try_from(length).unwrap()];
    enclave.read_exact(&mut body).await.unwrap();
    frame::decode(&body).unwrap()
}

#[tokio::test]
async fn a_client_is_announced_and_forwarded() {
    let (mut client, mut connections) = publish(0).await;
    let mut enclave = connections.recv().await.unwrap();
    let client_address = Some(client.local_addr().unwrap());
    let expected = Header { version: VERSION, port: 80, client: client_address, framing: Framing::Chunked };
    assert_eq!(header(&mut enclave).await, expected);
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = [0; 12];
    enclave.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"\0\0\0\x04ping\0\0\0\0");
    enclave.write_all(b"\0\0\0\x04pong\0\0\0\0").await.unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "pong");
}

#[tokio::test]
async fn an_ingress_port_that_is_not_bound_yet_is_waited_for() {
    for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound, io::ErrorKind::WouldBlock] {
        let ([port], mut connections) = publish_all([80], 3, kind, MAX_CLIENTS);
        let mut client = TcpStream::connect(port).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut enclave = connections.recv().await.unwrap();
        header(&mut enclave).await;
        let mut received = [0; 5];
        enclave.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"\0\0\0\x01x");
    }
}

#[tokio::test]
async fn idle_clients_of_one_port_leave_capacity_for_those_of_another() {
    let ([busy, other], mut connections) = publish_all([80, 81], 0, io::ErrorKind::ConnectionRefused, 8);
    let mut open = vec![];
    for _ in 0..8 {
        open.push(TcpStream::connect(busy).await.unwrap());
    }
    let mut forwarded = vec![];
    // Its own two, the shared four, less the one that the other port's loop may hold meanwhile.
    for _ in 0..5 {
        let mut enclave = connections.recv().await.unwrap();
        assert_eq!(header(&mut enclave).await.port, 80);
        forwarded.push(enclave);
    }
    let _client = TcpStream::connect(other).await.unwrap();
    loop {
        let mut enclave = connections.recv().await.unwrap();
        let port = header(&mut enclave).await.port;
        forwarded.push(enclave);
        if port == 81 {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_has_as_many_connections_as_it_may_is_reset_until_one_of_them_ends() {
    let ([port], mut connections) = publish_all([LIMITED], 0, io::ErrorKind::ConnectionRefused, 8);
    let first = TcpStream::connect(port).await.unwrap();
    let mut enclave = connections.recv().await.unwrap();
    header(&mut enclave).await;
    let mut second = TcpStream::connect(port).await.unwrap();
    let error = second.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop((first, enclave));
    loop {
        // The place is free once the sleeve has noticed the end.
        let _next = TcpStream::connect(port).await.unwrap();
        tokio::select! {
            forwarded = connections.recv() => break drop(forwarded.unwrap()),
            () = sleep(PAUSE) => {}
        }
    }
}

#[test]
fn a_limit_that_is_too_low_is_reported_with_the_limit_to_raise() {
    assert_eq!(limit_warning(MAX_CLIENTS), None);
    let text = limit_warning(192).unwrap();
    assert!(
        text.contains("192 concurrent clients, not 4096") && text.contains("hard limit to 16640"),
        "{text}"
    );
}

#[tokio::test]
async fn a_client_that_posts_more_than_the_service_reads_sees_the_answer() {
    let (mut client, mut connections) = publish(0).await;
    let mut enclave = connections.recv().await.unwrap();
    header(&mut enclave).await;
    client.write_all(&[b'x'; 1024]).await.unwrap();
    let mut received = [0; 1028];
    enclave.read_exact(&mut received).await.unwrap();
    enclave.write_all(b"\0\0\0\x03413\xff\xff\xff\xff").await.unwrap();
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((received.as_slice(), error.kind()), (&b"413"[..], io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_client_that_cannot_be_forwarded_is_reset() {
    let (mut client, _connections) = publish(u32::MAX).await;
    client.write_all(b"x").await.unwrap();
    tokio::time::pause();
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_enclave_that_dies_mid_connection_is_not_reported_as_an_orderly_end() {
    let (mut client, mut connections) = publish(0).await;
    let mut enclave = connections.recv().await.unwrap();
    header(&mut enclave).await;
    enclave.write_all(b"\0\0\0\x09half").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    drop(enclave);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
