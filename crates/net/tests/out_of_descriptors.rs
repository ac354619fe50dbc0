//! An accept loop in a process without free descriptors. It runs in its own process, because the limit applies to the
//! process.
#![cfg(test)]

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;

use cloister_net::places::{Limits, Places};
use cloister_net::{Entrance, Gate, Listener, accept_each, connection_capacity};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn clients_wait_while_no_descriptor_is_free_and_are_served_afterwards() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let gate = Gate::new(8);
    let mut client = TcpStream::connect(listener.tcp_address().unwrap()).unwrap();
    let other = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut other_client = TcpStream::connect(other.tcp_address().unwrap()).unwrap();
    assert_eq!(connection_capacity(100, 10), 100);
    let limit = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(connection_capacity(10, 10), 10, "64 descriptors are enough for ten connections");
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let error = listener.accept().await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));

    // An accept loop with per-peer limits waits too, and serves no client yet.
    let places = Places::new(Limits { host: 1, service: 0, shared: 0 });
    let (seen, mut served) = tokio::sync::mpsc::channel(1);
    drop(tokio::spawn(accept_each(Entrance::host(other), places, move |stream, _| {
        let seen = seen.clone();
        async move { seen.send(stream).await.unwrap() }
    })));

    let permit = gate.enter().await;
    let next = tokio::spawn({
        let gate = gate.clone();
        async move { gate.next(&listener).await }
    });
    tokio::task::yield_now().await;
    assert!(!next.is_finished());
    assert!(served.try_recv().is_err());
    drop(hoard);
    drop(permit);

    let (stream, _) = next.await.unwrap();
    stream.send_all(b"!").await.unwrap();
    client.read_exact(&mut [0]).unwrap();
    served.recv().await.unwrap().send_all(b"!").await.unwrap();
    other_client.read_exact(&mut [0]).unwrap();
}
