//! Heads of requests, as clients send them.

use super::*;

#[tokio::test]
async fn a_head_is_passed_on_when_it_is_complete() {
    let (mut client, mut server) = tokio::io::duplex(64);
    let sending = tokio::spawn(async move {
        for piece in ["GET / HT", "TP/1.1\r", "\nHost: x\r\n\r", "\nrest"] {
            client.write_all(piece.as_bytes()).await.unwrap();
        }
        client
    });
    let head = head(&mut server).await.unwrap();
    assert!(head.starts_with(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "{head:?}");
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_passed_on_for_its_refusal_and_an_incomplete_one_is_not() {
    let (mut client, mut server) = tokio::io::duplex(64 * 1024);
    client.write_all(&vec![b'x'; 20_000]).await.unwrap();
    assert_eq!(head(&mut server).await.unwrap().len(), MAX_HEAD);
    let (mut client, mut server) = tokio::io::duplex(64);
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    drop(client);
    assert_eq!(head(&mut server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
