//! One client: its handshake, its request and the response.
//!
//! Invariant: a client that is slow or idle is disconnected. The attestor gets decrypted bytes only, only of a client whose handshake
//! is complete, and only once the head of its request has arrived, so that idle clients take no place there. What the client sends
//! after that head is discarded: requests have no body.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use cloister_net::packets::Packets;
use cloister_net::{Gate, Stream};
use cloister_wire::packet::encode;
use cloister_wire::terminator::Question;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::certificate::Certificates;

/// Time limit for the first message of a handshake, which a client sends as soon as it is connected.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// Time limit for the rest of a handshake, as the attestor may take ten seconds for a certificate.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// Time limit for the head of the request, which a client sends with the end of the handshake.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// Time limit for the response, with the wait for a place at the attestor: longer than the attestor's own for a request.
const RESPONSE_TIME: Duration = Duration::from_secs(25);

/// Time limit for what a client sends after its head.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Maximum bytes of it. If unread bytes were left, the client could lose the end of the response.
const MAX_DISCARDED: u64 = 64 * 1024;

/// Maximum bytes of a head that are passed on: more than the attestor accepts, so that it refuses a longer one.
const MAX_HEAD: usize = 9 * 1024;

/// Encrypted bytes that a slow client has not taken yet: one record and its successor.
const MAX_UNSENT: usize = 32 * 1024;

/// The end of a head (RFC 9112, section 2.1).
const HEAD_END: &[u8] = b"\r\n\r\n";

/// An alert in place of a handshake: fatal, internal error (RFC 8446, sections 5.1 and 6).
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Serves one client, of whom so many as `serving` admits are at the attestor at once.
pub(crate) async fn serve(
    stream: Stream,
    certificates: &Certificates,
    serving: &Gate,
    attestor: &Packets,
) -> io::Result<()> {
    let hello = timeout(HELLO_TIME, LazyConfigAcceptor::new(Acceptor::default(), stream)).await??;
    let mut client = timeout(HANDSHAKE_TIME, shake_hands(hello, certificates)).await??;
    client.get_mut().1.set_buffer_limit(Some(MAX_UNSENT));
    let head = timeout(HEAD_TIME, head(&mut client)).await??;
    timeout(RESPONSE_TIME, async {
        let _place = serving.enter().await;
        let (mut server, theirs) = Stream::pair()?;
        let message = encode(&Question::Client).map_err(io::Error::other)?;
        attestor.send_with(&message, &[theirs.as_fd()]).await?;
        drop(theirs);
        // An attestor that has answered without reading everything has closed its end; its response is in the socket.
        drop(server.write_all(&head).await);
        copy(&mut server, &mut client).await?;
        client.shutdown().await
    })
    .await??;
    let mut rest = client.take(MAX_DISCARDED);
    drop(timeout(DISCARD_TIME, copy(&mut rest, &mut tokio::io::sink())).await);
    Ok(())
}

async fn shake_hands(
    mut hello: StartHandshake<Stream>,
    certificates: &Certificates,
) -> io::Result<TlsStream<Stream>> {
    let Some(config) = certificates.config().await else {
        hello.io.write_all(&INTERNAL_ERROR).await?;
        return Err(io::ErrorKind::NotConnected.into());
    };
    hello.into_stream(config).await
}

/// The head of a request, or as much as [`MAX_HEAD`] of it, with what came with it.
async fn head(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = client.take(u64::try_from(MAX_HEAD).unwrap_or(u64::MAX));
    while !head.windows(HEAD_END.len()).any(|end| end == HEAD_END) && head.len() < MAX_HEAD {
        if limited.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
