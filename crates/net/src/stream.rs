//! A connected stream socket in the Tokio reactor: vsock, TCP or Unix, one type for all three.
//!
//! Its law: no single write into a socket that leads over a vsock is longer than [`MAX_VSOCK_WRITE`], and no call blocks.
//! It holds no buffer. It leaves the order of reads and writes to its user.

mod connect;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloister_sys::reactor::Registered;
use cloister_sys::{splice, tcp};
use cloister_wire::ports::MAX_VSOCK_WRITE;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use connect::tcp_beside;

use crate::{means, scratch};

/// A connected stream socket.
///
/// It implements [`AsyncRead`] and [`AsyncWrite`], by reference too, so that one task can read while another writes.
///
/// A write is tried before anybody waits for room, and room is not even watched for until a write has found none. On sockets
/// that lead over a vsock every packet that arrives, and every one that leaves, says that there is room
/// (`virtio_transport_recv_connected` and `unix_write_space` of Linux), and a new socket of any kind says so at once: that
/// would wake a reader for nothing.
#[derive(Debug)]
pub struct Stream {
    io: Registered,
    /// Watches for room, from the first write on that found none.
    room: OnceLock<Registered>,
    /// Whether the last write found no room.
    stalled: AtomicBool,
    kind: Kind,
}

/// What the socket is, where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `AF_VSOCK`.
    Vsock,
    /// The Unix socket of a device that speaks for a virtual machine.
    Device,
    /// TCP or Unix, to a program of this machine.
    Local,
    /// TCP that was told that this side speaks first.
    Speaks,
}

impl Stream {
    /// Takes a connected, non-blocking `AF_VSOCK` socket.
    pub fn vsock(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Vsock))
    }

    /// Takes a connected, non-blocking Unix socket of a device that speaks for a virtual machine.
    pub fn over_device(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Device))
    }

    /// Takes a connected, non-blocking TCP or Unix socket of this machine.
    pub fn local(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Local))
    }

    fn dialled(socket: OwnedFd, speaks: bool) -> io::Result<Self> {
        let kind = if speaks { Kind::Speaks } else { Kind::Local };
        Ok(Self::with(Registered::for_reading(socket)?, kind))
    }

    /// Whether the other side is not told of this TCP connection before something is sent.
    pub(crate) fn speaks_first(&self) -> bool {
        self.kind == Kind::Speaks
    }

    /// The address that this end of a TCP connection has.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(rustix::net::getsockname(&*self.io)?)?)
    }

    const fn with(io: Registered, kind: Kind) -> Self {
        Self { io, room: OnceLock::new(), stalled: AtomicBool::new(false), kind }
    }

    /// Whether a vsock carries what is written here.
    const fn leads_over_vsock(&self) -> bool {
        matches!(self.kind, Kind::Vsock | Kind::Device)
    }

    /// Reads into `buffer`; 0 is the end.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_recv(cx, buffer)).await
    }

    /// Reads once, at most `limit` bytes of what is there; nothing is the end. While it waits it holds no buffer.
    pub async fn recv_some(&self, limit: usize) -> io::Result<Vec<u8>> {
        std::future::poll_fn(|cx| {
            scratch::with(|buffer| {
                let end = limit.min(buffer.len());
                let window = buffer.get_mut(..end).unwrap_or_default();
                let count = ready!(self.poll_recv(cx, window))?;
                Poll::Ready(Ok(window.get(..count).unwrap_or_default().to_vec()))
            })
        })
        .await
    }

    /// Reads a line of at most `limit` bytes with its newline, and nothing behind it.
    ///
    /// Errors: `UnexpectedEof` before the newline, `InvalidData` when `limit` bytes hold none.
    pub async fn recv_line(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut line = vec![0; limit];
        loop {
            let mut ready = self.io.readable().await?;
            let seen = match rustix::net::recv(&*self.io, &mut *line, RecvFlags::PEEK) {
                Ok((seen, _)) => line.get(..seen).unwrap_or_default(),
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(newline) = seen.iter().position(|byte| *byte == b'\n') {
                line.truncate(newline.saturating_add(1));
                let taken = self.recv(&mut line).await?;
                line.truncate(taken);
                return Ok(line);
            }
            match seen.len() {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length if length == limit => return Err(io::ErrorKind::InvalidData.into()),
                _ => ready.clear_ready(),
            }
        }
    }

    /// Writes all of `bytes`.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = std::future::poll_fn(|cx| self.poll_send_patiently(cx, bytes)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends this side's direction; the other goes on. A peer that is gone already is no error.
    pub fn end_sending(&self) -> io::Result<()> {
        match rustix::net::shutdown(&*self.io, Shutdown::Write) {
            Err(Errno::NOTCONN) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a TCP peer see a reset when this is closed, not an orderly end: also when this process is killed. Other sockets
    /// know no such thing.
    pub fn reset_on_close(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&*self.io, Some(Duration::ZERO))?)
    }

    /// Makes a TCP peer see an orderly end when this is closed, as it does unless [`Self::reset_on_close`] was asked for.
    pub fn end_on_close(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&*self.io, None)?)
    }

    /// Waits until the peer's system has everything that was written here, or the connection has failed. A reset that is sent
    /// before that takes away what is still on its way.
    ///
    /// No readiness comes for it, so it is asked again and again: only connections that break off wait for it.
    pub async fn delivered(&self) {
        while tcp::unacknowledged(&*self.io).is_ok_and(|bytes| bytes > 0) && !self.has_failed() {
            tokio::time::sleep(means::PAUSE).await;
        }
    }

    /// Whether the connection is known to be dead in both directions.
    fn has_failed(&self) -> bool {
        // An error or a hang-up is always reported, whatever was asked for.
        let mut asked = [PollFd::new(&*self.io, PollFlags::empty())];
        rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    /// Reads once into `buffer`; 0 is the end.
    ///
    /// A stream socket that gave less than was asked has no more, so that the next read waits for the reactor and not
    /// for one more `EAGAIN`.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            match rustix::net::recv(&*self.io, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    if 0 < count && count < buffer.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes once; the count can be short.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = bytes.get(..self.longest_write()).unwrap_or(bytes);
        self.poll_write_with(cx, || {
            rustix::io::retry_on_intr(|| rustix::net::send(&*self.io, piece, SendFlags::NOSIGNAL))
        })
    }

    /// Writes once, and tries again after a pause where the kernel lacks the means: only the relay has a timer of
    /// its own for that.
    fn poll_send_patiently(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_send(cx, bytes) {
            Poll::Ready(Err(error)) if means::are_lacking(&error) => {
                means::wake_later(cx);
                Poll::Pending
            }
            result => result,
        }
    }

    /// Moves up to `max` bytes, for which it has room, into an empty pipe; 0 is the end.
    ///
    /// A vsock that gave less than was asked has no more (`virtio_transport_stream_do_dequeue` of Linux), and one more
    /// attempt would have pages cleared for nothing. Others stop short of what they have when the pipe's pages are taken by
    /// small pieces.
    pub fn poll_splice_to(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            match splice::splice(&*self.io, pipe, max, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Ok(count) if self.kind == Kind::Vsock && 0 < count && count < max => {
                    ready.clear_ready();
                    return Poll::Ready(Ok(count));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Moves bytes into a pipe that may have room, without waiting for either.
    pub fn try_splice_to(&self, pipe: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        splice::splice(&*self.io, pipe, max, false)
    }

    /// Moves up to `count` bytes out of a pipe that holds as many.
    pub fn poll_splice_from(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let max = count.min(self.longest_write());
        self.poll_write_with(cx, || {
            splice::splice(pipe, &*self.io, max, max < count)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
    }

    /// Bytes that wait to be read, where the socket can tell: vsock cannot before Linux 6.17.
    pub fn readable(&self) -> io::Result<usize> {
        splice::readable(&*self.io)
    }

    /// Writes, or waits for room where the last write found none.
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if !self.stalled.load(Ordering::Relaxed) {
            match write() {
                Err(Errno::AGAIN) => self.stalled.store(true, Ordering::Relaxed),
                result => return Poll::Ready(Ok(result?)),
            }
        }
        let room = self.room()?;
        loop {
            let mut ready = ready!(room.poll_write_ready(cx))?;
            match write() {
                Err(Errno::AGAIN) => ready.clear_ready(),
                result => {
                    self.stalled.store(false, Ordering::Relaxed);
                    return Poll::Ready(Ok(result?));
                }
            }
        }
    }

    /// Who watches for room.
    ///
    /// Errors: `EMFILE` and `ENFILE` when there is no descriptor for it.
    fn room(&self) -> io::Result<&Registered> {
        if let Some(room) = self.room.get() {
            return Ok(room);
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(&*self.io, 0)?;
        let room = Registered::for_writing(socket)?;
        Ok(self.room.get_or_init(|| room))
    }

    const fn longest_write(&self) -> usize {
        if self.leads_over_vsock() { MAX_VSOCK_WRITE } else { usize::MAX }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl AsyncRead for &Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(self.poll_recv(cx, into.initialize_unfilled()))?;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for &Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_patiently(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end_sending())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_patiently(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end_sending())
    }
}
