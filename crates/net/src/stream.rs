//! A connected stream socket in the Tokio reactor: vsock, TCP or Unix, one type for all three.
//!
//! Invariant: no single write to a socket that leads over a vsock is longer than [`MAX_VSOCK_WRITE`], and no call
//! blocks. A stream has no buffer; callers order its reads and writes.

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
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, socketpair, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use connect::tcp_on_shared_port;

use crate::{resources, scratch};

/// Bytes that an end of a pair holds; the kernel doubles it. Less than the default (`net.core.wmem_default`, 208 KiB): what is unread is
/// memory of the writer, who has many pairs.
const PAIR_BUFFER: usize = 16 * 1024;

/// A connected stream socket.
///
/// It implements [`AsyncRead`] and [`AsyncWrite`], by reference too, so that one task can read while another writes.
///
/// A write is tried first, and the reactor only watches for writability after a write returned `EAGAIN`. On sockets
/// that lead over a vsock, every packet received or sent signals writability (`virtio_transport_recv_connected` and
/// `unix_write_space` in Linux), and a new socket of any kind does so immediately: both would wake a reader
/// unnecessarily.
#[derive(Debug)]
pub struct Stream {
    io: Registered,
    /// Waits for writability, from the first write on that returned `EAGAIN`.
    write_watch: OnceLock<Registered>,
    /// Whether the last write returned `EAGAIN`.
    stalled: AtomicBool,
    kind: Kind,
}

/// The kinds of sockets that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `AF_VSOCK`.
    Vsock,
    /// The Unix socket of a device that connects to a virtual machine.
    Device,
    /// TCP or Unix, to a program of this machine.
    Local,
}

impl Stream {
    /// A new pair of Unix sockets: one end as a stream, and the other for another program. Each holds at most [`PAIR_BUFFER`]
    /// bytes, twice, that the other has not read.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, and those of the reactor.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        for end in [&ours, &theirs] {
            sockopt::set_socket_send_buffer_size(end, PAIR_BUFFER)?;
        }
        Ok((Self::local(ours)?, theirs))
    }

    /// Registers a connected, non-blocking `AF_VSOCK` socket.
    pub fn vsock(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Vsock))
    }

    /// Registers a connected, non-blocking Unix socket of a device that connects to a virtual machine.
    pub fn over_device(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Device))
    }

    /// Registers a connected, non-blocking TCP or Unix socket of this machine.
    pub fn local(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::with(Registered::for_reading(socket)?, Kind::Local))
    }

    /// The local address of a TCP connection.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(rustix::net::getsockname(&*self.io)?)?)
    }

    const fn with(io: Registered, kind: Kind) -> Self {
        Self { io, write_watch: OnceLock::new(), stalled: AtomicBool::new(false), kind }
    }

    /// Whether written bytes are sent over a vsock.
    const fn leads_over_vsock(&self) -> bool {
        matches!(self.kind, Kind::Vsock | Kind::Device)
    }

    /// Reads into `buffer`; returns 0 at the end of the stream.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_recv(cx, buffer)).await
    }

    /// Reads at most `limit` available bytes; returns an empty vector at the end of the stream. It allocates no buffer
    /// while it waits.
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

    /// Reads a line of at most `limit` bytes including its newline, and nothing after it.
    ///
    /// Errors: `UnexpectedEof` before the newline, `InvalidData` if the first `limit` bytes contain none.
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
            let sent = std::future::poll_fn(|cx| self.poll_send_retrying(cx, bytes)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Shuts down this side's direction; the other stays open. A disconnected peer is not an error.
    pub fn end_sending(&self) -> io::Result<()> {
        match rustix::net::shutdown(&*self.io, Shutdown::Write) {
            Err(Errno::NOTCONN) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shuts down the peer's direction: what it has sent can still be read, what it sends from now on fails there. A disconnected
    /// peer is not an error.
    pub fn end_receiving(&self) -> io::Result<()> {
        match rustix::net::shutdown(&*self.io, Shutdown::Read) {
            Err(Errno::NOTCONN) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a TCP peer see a reset instead of an orderly end when this is closed, also if this process is killed.
    /// Other sockets have no resets.
    pub fn reset_on_close(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&*self.io, Some(Duration::ZERO))?)
    }

    /// Reverts [`Self::reset_on_close`]: a TCP peer sees an orderly end when this is closed, which is the default.
    pub fn end_on_close(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&*self.io, None)?)
    }

    /// Waits until the peer's system has acknowledged all written bytes, or the connection has failed. A reset sent
    /// before that discards the bytes in flight.
    ///
    /// There is no readiness event for this, so it polls: only connections that break wait for it.
    pub async fn delivered(&self) {
        while tcp::unacknowledged(&*self.io).is_ok_and(|bytes| bytes > 0) && !self.has_failed() {
            tokio::time::sleep(resources::PAUSE).await;
        }
    }

    /// Whether the connection has failed in both directions.
    fn has_failed(&self) -> bool {
        // Errors and hang-ups are always reported, even if not requested.
        let mut polled = [PollFd::new(&*self.io, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    /// Reads once into `buffer`; returns 0 at the end of the stream.
    ///
    /// A stream socket that returned less than requested has no more data, so the next read waits for the reactor
    /// without another `EAGAIN`.
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

    /// Writes once; the count can be less than requested.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = bytes.get(..self.longest_write()).unwrap_or(bytes);
        self.poll_write_with(cx, || {
            rustix::io::retry_on_intr(|| rustix::net::send(&*self.io, piece, SendFlags::NOSIGNAL))
        })
    }

    /// Writes once, and retries after a pause if the kernel is out of resources. The relay has its own timer for that.
    fn poll_send_retrying(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_send(cx, bytes) {
            Poll::Ready(Err(error)) if resources::are_exhausted(&error) => {
                resources::wake_later(cx);
                Poll::Pending
            }
            result => result,
        }
    }

    /// Splices up to `max` bytes into an empty pipe of at least that size; returns 0 at the end of the stream.
    ///
    /// A vsock that returned less than requested has no more data (`virtio_transport_stream_do_dequeue` in Linux), and
    /// another attempt would clear pages unnecessarily. Others return less than they have if small pieces use up the
    /// pipe's pages.
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

    /// Splices bytes into a pipe without waiting for the socket or the pipe.
    pub fn try_splice_to(&self, pipe: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        splice::splice(&*self.io, pipe, max, false)
    }

    /// Splices up to `count` bytes out of a pipe that contains at least as many.
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

    /// Number of bytes that can be read. Not supported on vsock before Linux 6.17.
    pub fn readable(&self) -> io::Result<usize> {
        splice::readable(&*self.io)
    }

    /// Writes, or waits for writability if the last write returned `EAGAIN`.
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
        let watch = self.write_watch()?;
        loop {
            let mut ready = ready!(watch.poll_write_ready(cx))?;
            match write() {
                Err(Errno::AGAIN) => ready.clear_ready(),
                result => {
                    self.stalled.store(false, Ordering::Relaxed);
                    return Poll::Ready(Ok(result?));
                }
            }
        }
    }

    /// A duplicate of the socket that is registered for writing.
    ///
    /// Errors: `EMFILE` and `ENFILE` if no descriptor is available for it.
    fn write_watch(&self) -> io::Result<&Registered> {
        if let Some(watch) = self.write_watch.get() {
            return Ok(watch);
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(&*self.io, 0)?;
        let watch = Registered::for_writing(socket)?;
        Ok(self.write_watch.get_or_init(|| watch))
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
        self.poll_send_retrying(cx, bytes)
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
        self.poll_send_retrying(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end_sending())
    }
}
