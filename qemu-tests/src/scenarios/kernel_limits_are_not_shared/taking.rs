//! The kinds of resources that are taken: as much as possible, or one.

use std::any::Any;
use std::ffi::CString;
use std::fs;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use cloister_sys::objects;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;
use rustix::net::{AddressFamily, SocketType};
use rustix::pipe::PipeFlags;
use rustix::pty::{OpenptFlags, openpt};

use super::{PORT, REACHED};
use crate::guest::wait_for_file;

/// What is held until the process exits.
type Taken = Vec<Box<dyn Any>>;

/// One kind of resource.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Takes as much as possible, or more than any limit that must not exist. The text is why it stopped.
    pub(super) take: fn() -> Result<(Taken, String)>,
    /// Takes one, and checks that it works as usual.
    pub(super) need: fn() -> Result<()>,
}

/// Ports come first: before the first connection, none holds one.
pub(super) const KINDS: [Kind; 9] = [
    Kind { name: "ports", take: ports, need: || wait_for_file(REACHED) },
    Kind { name: "shared-memory", take: || Ok(until(5_000, |_| shared_memory())), need: shared_memory },
    Kind { name: "queues", take: || Ok(until(5_000, queue)), need: || queue(0).map(drop) },
    Kind { name: "terminals", take: || Ok(until(5_000, |_| terminal())), need: || terminal().map(drop) },
    Kind { name: "pipes", take: || Ok(until(2_000, |_| pipe())), need: || pipe().map(drop) },
    Kind { name: "inotify", take: || Ok(until(66_000, |_| inotify())), need: || watch().map(drop) },
    Kind { name: "fanotify", take: || Ok(until(1_000, |_| fanotify())), need: || fanotify().map(drop) },
    Kind { name: "epoll", take: epolls, need: || epoll(&event()?).map(drop) },
    Kind { name: "tcp-memory", take: tcp_memory, need: request },
];

/// Free memory of the machine and memory charged to this service, in KiB.
pub(super) fn memory() -> Result<(u64, u64)> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let free = meminfo.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let number = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>().map_err(Error::other);
    let charged = number(&fs::read_to_string("/sys/fs/cgroup/memory.current")?)?;
    Ok((number(free.unwrap_or_default())?, charged / 1024))
}

/// Creates items until one is refused or `most` exist.
fn until<T: Any>(most: usize, mut make: impl FnMut(usize) -> Result<T>) -> (Taken, String) {
    let mut taken: Taken = Vec::new();
    while taken.len() < most {
        match make(taken.len()) {
            Ok(one) => taken.push(Box::new(one)),
            Err(error) => return (taken, error.to_string()),
        }
    }
    (taken, "enough".to_owned())
}

fn shared_memory() -> Result<()> {
    objects::shared_memory(4096)
}

fn queue(number: usize) -> Result<OwnedFd> {
    objects::message_queue(&CString::new(format!("/{number}"))?)
}

fn terminal() -> Result<OwnedFd> {
    Ok(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?)
}

/// A pipe of the usual size: some programs deadlock with smaller ones.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let ends = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match rustix::pipe::fcntl_getpipe_size(&ends.0)? {
        65_536 => Ok(ends),
        bytes => Err(Error::other(format!("a pipe of {bytes} bytes"))),
    }
}

fn inotify() -> Result<OwnedFd> {
    Ok(inotify::init(inotify::CreateFlags::CLOEXEC)?)
}

fn watch() -> Result<OwnedFd> {
    let instance = inotify()?;
    inotify::add_watch(&instance, "/tmp", inotify::WatchFlags::CREATE)?;
    Ok(instance)
}

fn fanotify() -> Result<OwnedFd> {
    objects::fanotify_group()
}

fn event() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

fn epoll(watched: &OwnedFd) -> Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, watched, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    Ok(epoll)
}

/// Each of some epolls watches each of some files: more watches than fit in a 25th of the memory, which is the kernel's limit
/// for a user (`eventpoll_init`).
fn epolls() -> Result<(Taken, String)> {
    let files = (0..1_000).map(|_| event()).collect::<Result<Vec<_>>>()?;
    let mut taken: Taken = Vec::new();
    let mut why = "enough".to_owned();
    while taken.len() < 160 && why == "enough" {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for file in &files {
            let added = epoll::add(&epoll, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
            why = added.err().map_or(why, |error| error.to_string());
        }
        taken.push(Box::new(epoll));
    }
    taken.push(Box::new(files));
    Ok((taken, why))
}

/// Fills connections whose other ends read nothing, until they use the kernel's maximum for all of them.
fn tcp_memory() -> Result<(Taken, String)> {
    let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem")?;
    let most = limits.split_whitespace().last().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut taken, why) = until(400, |_| {
        if sockets("mem")? >= most {
            return Err(Error::other("all of tcp_mem"));
        }
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let far = listener.accept()?.0;
        fill(&mut near)?;
        Ok((near, far))
    });
    taken.push(Box::new(listener));
    Ok((taken, why))
}

/// Writes until the buffers are full.
fn fill(stream: &mut TcpStream) -> Result<()> {
    stream.set_nonblocking(true)?;
    loop {
        match stream.write(&[1; 16 * 1024]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A TCP number of `/proc/net/sockstat`.
fn sockets(key: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let mut fields = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default().split(' ');
    fields.find(|found| *found == key);
    fields.next().and_then(|number| number.parse().ok()).ok_or_else(|| Error::other(text.clone()))
}

/// A TCP request, and its answer.
fn request() -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.ends_with("here") { Ok(()) } else { Err(Error::other(format!("answer {answer:?}"))) }
}

/// Binds every port that the kernel assigns to connections, on every address.
fn ports() -> Result<(Taken, String)> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return Err(Error::other(range)) };
    let mut taken: Taken = Vec::new();
    for port in first..=last {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
        // A connection may have it.
        if rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)).is_ok() {
            taken.push(Box::new(socket));
        }
    }
    let left = TcpStream::connect(("127.0.0.1", PORT)).and_then(|stream| stream.local_addr());
    Ok((taken, left.map_or_else(|error| error.to_string(), |port| format!("only {port} is left"))))
}
