//! Reports the final state to the host from init itself, because there is no supervisor to do it.
//!
//! Invariant: one connection, a few frames, and one time limit for all of it. Data from the host is read, bounded, only to
//! learn that it has received the state; it can neither delay nor change anything.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cloister_sys::vsock;
use cloister_wire::control::{IngressCounters, LastStatus, State};
use cloister_wire::frame::{self, Decoder, HOST_LIMIT};
use cloister_wire::hello::{Hello, Protocol, Role};
use cloister_wire::ports;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Known;
use crate::boot::uptime;

/// Connections that may be pending: one is served.
const BACKLOG: u32 = 1;

/// Higher than any sequence number of a supervisor's status, and the highest integer that every JSON reader represents exactly
/// (RFC 8259, section 6).
const LAST: u64 = (1 << 53) - 1;

/// Waits for the host at most `limit` and reports the state to it. A machine without vsock, or a host that does not connect, is
/// not an error: the console shows the same state.
pub(super) fn report(state: State, known: &Known, limit: Duration) {
    let status = LastStatus {
        seq: LAST,
        state,
        platform: known.platform.to_owned(),
        uptime_ms: u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX),
        supervisor_restarts: known.supervisors.saturating_sub(1),
        boot: known.boot.clone(),
        services: [],
        ingress: IngressCounters::default(),
    };
    let end = Instant::now() + limit;
    drop(serve(&status, end));
}

fn serve(status: &LastStatus, end: Instant) -> io::Result<()> {
    let listener = vsock::listen(ports::CONTROL, BACKLOG)?;
    await_ready(&listener, PollFlags::IN, end)?;
    let (host, _) = vsock::accept(&listener)?;
    let hello = frame::encode(&Hello::new(Protocol::Control, Role::Guest), HOST_LIMIT);
    let status = frame::encode(status, HOST_LIMIT);
    for frame in [hello, status] {
        send(&host, &frame.map_err(io::Error::other)?, end)?;
    }
    await_seen(&host, end)
}

fn send(host: &OwnedFd, bytes: &[u8], end: Instant) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let piece = left.get(..ports::MAX_VSOCK_WRITE).unwrap_or(left);
        match rustix::net::send(host, piece, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => left = left.get(sent..).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN) => await_ready(host, PollFlags::OUT, end)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads until the host has sent a frame after its hello, or disconnects. The only useful one is `Request::Seen`, so its
/// content is not checked.
fn await_seen(host: &OwnedFd, end: Instant) -> io::Result<()> {
    let mut decoder = Decoder::new(HOST_LIMIT);
    let mut greeted = false;
    let mut buffer = [0; 1024];
    loop {
        await_ready(host, PollFlags::IN, end)?;
        let n = match rustix::io::read(host, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(rustix::io::Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        decoder.push(buffer.get(..n).unwrap_or_default());
        while decoder.next_frame().map_err(io::Error::other)?.is_some() {
            if std::mem::replace(&mut greeted, true) {
                return Ok(());
            }
        }
    }
}

fn await_ready(fd: impl AsFd, what: PollFlags, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).ok();
    match rustix::event::poll(&mut [PollFd::new(&fd, what)], timeout.as_ref())? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
