//! The service at the end of every path: echo, sink or source, selected by the first byte of a connection.
//!
//! Invariant: it does the same work on every kind of socket.

use std::io;

use cloister_net::{Gate, Listener, Stream, connection_capacity};

/// Echo: every byte comes back.
pub const ECHO: u8 = b'E';

/// Sink: eight bytes of length follow, then as many bytes; the response is one byte when all have arrived.
pub const SINK: u8 = b'U';

/// Source: eight bytes of length follow; the response is as many bytes.
pub const SOURCE: u8 = b'D';

/// Bytes read and written at once, as in a service with large buffers.
const PIECE: usize = 256 * 1024;

/// Serves `listener` without end.
pub async fn serve(listener: Listener) {
    let gate = Gate::new(connection_capacity(8192, 64));
    loop {
        let (stream, _) = gate.next(&listener).await;
        // A client that disconnects ends only its own connection.
        drop(tokio::spawn(async move { drop(answer(&stream).await) }));
    }
}

async fn answer(stream: &Stream) -> io::Result<()> {
    let mut head = stream.recv_some(PIECE).await?;
    match head.first() {
        Some(&ECHO) => echo(stream, head.get(1..).unwrap_or_default()).await,
        Some(&SINK) => sink(stream, &mut head).await,
        Some(&SOURCE) => source(stream, &mut head).await,
        _ => Ok(()),
    }
}

async fn echo(stream: &Stream, first: &[u8]) -> io::Result<()> {
    stream.send_all(first).await?;
    loop {
        let bytes = stream.recv_some(PIECE).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        stream.send_all(&bytes).await?;
    }
}

async fn sink(stream: &Stream, head: &mut Vec<u8>) -> io::Result<()> {
    let length = length(stream, head).await?;
    let mut left = length.saturating_sub(count(head.len().saturating_sub(9)));
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let got = stream.recv(&mut piece).await?;
        if got == 0 {
            return Ok(());
        }
        left = left.saturating_sub(count(got));
    }
    stream.send_all(&[SINK]).await
}

async fn source(stream: &Stream, head: &mut Vec<u8>) -> io::Result<()> {
    let mut left = length(stream, head).await?;
    let piece = vec![b'x'; PIECE];
    while left > 0 {
        let next = piece.len().min(usize::try_from(left).unwrap_or(PIECE));
        stream.send_all(piece.get(..next).unwrap_or_default()).await?;
        left = left.saturating_sub(count(next));
    }
    Ok(())
}

/// The length after the first byte; reads into `head` until it is complete.
async fn length(stream: &Stream, head: &mut Vec<u8>) -> io::Result<u64> {
    loop {
        if let Some(bytes) = head.get(1..).and_then(<[u8]>::first_chunk::<8>) {
            return Ok(u64::from_be_bytes(*bytes));
        }
        let more = stream.recv_some(PIECE).await?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend(more);
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
