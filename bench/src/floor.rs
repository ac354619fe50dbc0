//! A minimal relay: the lower bound with which ours is compared.
//!
//! Invariant: it makes only system calls that every connection needs. One thread, one epoll, no timer, no framing, no header.
//! It blocks while a receiver is slow, and has no half-close and no limits, so it is useful only for comparison.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use cloister_sys::{splice, vsock};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use cloister_wire::ports::MAX_VSOCK_WRITE;

/// Connections in the listen queue.
const BACKLOG: u32 = 1024;

/// Bytes read at once, and the size of the pipe for a full flow.
const PIECE: usize = 256 * 1024;

/// A read of at least this many bytes starts a full flow.
const FULL: usize = 16 * 1024;

/// The listener's epoll data; a connection's two sockets have smaller numbers.
const LISTENER: u64 = u64::MAX;

/// Serves `port` by forwarding every connection to `service`; never returns without an error.
pub fn serve(port: u32, service: u16) -> io::Result<()> {
    Floor::new(port, service)?.run()
}

/// The sockets of a connection, and whether there is a full flow in and out.
#[derive(Debug)]
struct Pair {
    host: OwnedFd,
    service: OwnedFd,
    full: [bool; 2],
}

#[derive(Debug)]
struct Floor {
    listener: OwnedFd,
    service: SocketAddrV4,
    epoll: OwnedFd,
    pipe: (OwnedFd, OwnedFd),
    buffer: Vec<u8>,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
}

impl Floor {
    fn new(port: u32, service: u16) -> io::Result<Self> {
        let listener = vsock::listen(port, BACKLOG)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let pipe = splice::pipe()?;
        splice::set_pipe_size(&pipe.1, PIECE)?;
        let service = SocketAddrV4::new(Ipv4Addr::LOCALHOST, service);
        let (pairs, free) = (Vec::new(), Vec::new());
        Ok(Self { listener, service, epoll, pipe, buffer: vec![0; PIECE], pairs, free })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    end => self.forward(end),
                }
            }
        }
    }

    /// Accepts one connection, with its first bytes.
    fn accept(&mut self) -> io::Result<()> {
        let (host, _) = vsock::accept(&self.listener)?;
        let mut first = read(&host, &mut self.buffer);
        if first == Err(Errno::AGAIN) {
            wait(&host, PollFlags::IN)?;
            first = read(&host, &mut self.buffer);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let service = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&service, true)?;
        match rustix::net::connect(&service, &self.service) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let first = first.ok().and_then(|count| self.buffer.get(..count)).unwrap_or_default();
        write(&service, first)?;
        let place = self.free.pop().unwrap_or(self.pairs.len());
        for (end, socket) in (0..).zip([&host, &service]) {
            let data = u64::try_from(place).unwrap_or_default().saturating_mul(2).saturating_add(end);
            epoll::add(&self.epoll, socket, EventData::new_u64(data), EventFlags::IN)?;
        }
        if place == self.pairs.len() {
            self.pairs.push(None);
        }
        self.put(place, Pair { host, service, full: [false; 2] });
        Ok(())
    }

    fn put(&mut self, place: usize, pair: Pair) {
        if let Some(slot) = self.pairs.get_mut(place) {
            *slot = Some(pair);
        }
    }

    /// Moves the available bytes. The end of either side ends both.
    fn forward(&mut self, end: u64) {
        let place = usize::try_from(end / 2).unwrap_or(usize::MAX);
        // If this was the end, the other socket's event of the same round finds the place empty.
        let Some(mut pair) = self.pairs.get_mut(place).and_then(Option::take) else { return };
        match self.step(&mut pair, end.is_multiple_of(2)) {
            Ok(0) | Err(_) => self.free.push(place),
            Ok(_) => self.put(place, pair),
        }
    }

    fn step(&mut self, pair: &mut Pair, inward: bool) -> io::Result<usize> {
        let Pair { host, service, full: [full_in, full_out] } = pair;
        let (from, to, full) = if inward { (host, service, full_in) } else { (service, host, full_out) };
        let longest = if inward { PIECE } else { MAX_VSOCK_WRITE };
        let count = if *full { self.splice(from, to, longest)? } else { self.copy(from, to, longest)? };
        *full = count >= FULL;
        Ok(count)
    }

    fn copy(&mut self, from: &OwnedFd, to: &OwnedFd, longest: usize) -> io::Result<usize> {
        let count = read(from, &mut self.buffer)?;
        for piece in self.buffer.get(..count).unwrap_or_default().chunks(longest) {
            write(to, piece)?;
        }
        Ok(count)
    }

    fn splice(&self, from: &OwnedFd, to: &OwnedFd, longest: usize) -> io::Result<usize> {
        let (reader, writer) = &self.pipe;
        let count = splice::splice(from, writer, PIECE, false)?;
        let mut left = count;
        while left > 0 {
            let piece = left.min(longest);
            match splice::splice(reader, to, piece, piece < left) {
                Ok(moved) => left = left.saturating_sub(moved),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(to, PollFlags::OUT)?,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }
}

fn read(from: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    Ok(rustix::net::recv(from, buffer, RecvFlags::empty())?.0)
}

/// Writes all bytes, blocking while the socket is full.
fn write(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(to, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(socket: &OwnedFd, what: PollFlags) -> io::Result<()> {
    rustix::event::poll(&mut [PollFd::new(socket, what)], None)?;
    Ok(())
}
