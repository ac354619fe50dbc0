//! One client: its handshake, and the bytes in both directions.
//!
//! Invariant: a client that is slow or idle is disconnected. The attestor sees decrypted bytes only, and only of a client whose
//! handshake is complete.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use cloister_net::Stream;
use cloister_net::packets::Packets;
use cloister_wire::packet::encode;
use cloister_wire::terminator::Question;
use rustls::server::Acceptor;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::certificate::Certificates;

/// Time limit for a handshake, as the attestor may take ten seconds for a certificate.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// Time limit for a connection after its handshake: longer than the attestor's own for a request.
const CLIENT_TIME: Duration = Duration::from_secs(25);

/// Bytes in transit per direction: a request has some hundred, and a response is read in pieces anyway.
const PIECE: usize = 4096;

/// Serves one client.
pub(crate) async fn serve(stream: Stream, certificates: &Certificates, attestor: &Packets) -> io::Result<()> {
    let accepted = timeout(HANDSHAKE_TIME, async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = certificates.config().await.ok_or(io::ErrorKind::NotConnected)?;
        hello.into_stream(config).await
    });
    let mut client = accepted.await.map_err(io::Error::from)??;
    let (mut server, theirs) = Stream::pair()?;
    let message = encode(&Question::Client).map_err(io::Error::other)?;
    attestor.send_with(&message, &[theirs.as_fd()]).await?;
    drop(theirs);
    timeout(CLIENT_TIME, copy_bidirectional_with_sizes(&mut client, &mut server, PIECE, PIECE)).await??;
    Ok(())
}
