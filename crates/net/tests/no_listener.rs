//! Connecting to a port without a listener, which the kernel may also assign to the connecting socket.
#![cfg(test)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use cloister_net::Stream;
use tokio::net::TcpSocket;

/// More than the number of ports that a connecting socket gets first, every second of Linux's 28,232
/// (`ip_local_port_range`): one of the attempts gets the port it connects to.
const TRIES: u32 = 20_000;

/// Number of ports tried: with a thousand connections in `TIME_WAIT` on this machine, one in fourteen is in use.
const PORTS: u32 = 5;

#[tokio::test]
async fn a_port_without_a_listener_refuses_connections_and_can_be_bound_afterwards() {
    let mut taken = 0;
    while !is_free_after_many_tries().await {
        // By a connection of another program on this machine.
        taken += 1;
        assert!(taken < PORTS, "a port was in use after connecting to it, {taken} times in a row");
    }
}

async fn is_free_after_many_tries() -> bool {
    let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    // Listeners get odd ports and connecting sockets even ones, as long as any are free (`__inet_hash_connect`).
    let port = given.port() & !1;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..TRIES {
        assert_eq!(Stream::connect_tcp(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    let service = TcpSocket::new_v4().unwrap();
    service.bind(address).is_ok()
}
