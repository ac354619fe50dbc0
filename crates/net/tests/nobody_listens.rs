//! Connecting to a port that nobody listens on, where the kernel may give the socket that port for its own.
#![cfg(test)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use cloister_net::Stream;
use tokio::net::TcpSocket;

/// More than the ports that a connecting socket gets first, every second of Linux's 28,232 (`ip_local_port_range`): one
/// attempt among them gets the very port it connects to.
const TRIES: u32 = 20_000;

/// How many ports are tried: with a thousand connections in `TIME_WAIT` on this machine one in fourteen is taken.
const PORTS: u32 = 5;

#[tokio::test]
async fn a_port_that_nobody_listens_on_never_answers_and_can_be_taken_afterwards() {
    let mut taken = 0;
    while !is_free_after_many_tries().await {
        // By a connection of some other program of this machine.
        taken += 1;
        assert!(taken < PORTS, "a port is taken after it was connected to, {taken} times in a row");
    }
}

async fn is_free_after_many_tries() -> bool {
    let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    // Listeners are given odd ports and connecting sockets even ones, as long as there are (`__inet_hash_connect`).
    let port = given.port() & !1;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..TRIES {
        assert_eq!(Stream::connect_tcp(nobody).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    let service = TcpSocket::new_v4().unwrap();
    service.bind(nobody).is_ok()
}
