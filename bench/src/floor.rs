//! The least a relay can do: the floor that ours is compared with.
//!
//! Its law: no system call that a connection could do without. One thread, one epoll, no timer, no framing, no header. It
//! waits for a slow receiver in place, knows no half-close and no limit, and so serves for nothing but comparison.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use cloister_sys::{splice, tcp, vsock};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use cloister_wire::ports::MAX_VSOCK_WRITE;

/// Connections that may wait.
const BACKLOG: u32 = 1024;

/// Bytes read at once, and the size of the pipe that a full flow goes through.
const PIECE: usize = 256 * 1024;

/// A read of so many bytes is the beginning of a full flow.
const FULL: usize = 16 * 1024;

/// What epoll says of the listener; a connection's two sockets have the numbers below.
const LISTENER: u64 = u64::MAX;

/// Serves `port` by carrying every connection to `service`, for ever.
pub fn serve(port: u32, service: u16) -> io::Result<()> {
    Floor::new(port, service)?.run()
}

/// The sockets of a connection, and whether bytes flow in full: in, and out.
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
                    end => self.carry(end),
                }
            }
        }
    }

    /// Takes one connection, with its first bytes: they leave with the last packet of the handshake.
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
        tcp::speaks_first(&service)?;
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

    /// Moves what is there. The end of either side is the end of both.
    fn carry(&mut self, end: u64) {
        let place = usize::try_from(end / 2).unwrap_or(usize::MAX);
        // The other end's event of the same turn finds the place empty when this one was the last.
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

/// Writes all, waiting in place for room.
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
