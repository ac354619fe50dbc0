//! The owner of a TCP socket on this machine: the kernel's socket diagnosis (`sock_diag(7)`), which needs no privilege.
//!
//! Invariant: the answer comes from the kernel and is about exactly one socket. A socket belongs to the cgroup of the
//! process that created it, and a connection's to that of its listener (`cgroup_sk_clone`, `kernel/cgroup/cgroup.c`);
//! that never changes. A connection whose listener waits for data first (`TCP_DEFER_ACCEPT`), or whose
//! queue has filled up during the handshake, is a request without a cgroup (`inet_req_diag_fill`,
//! `net/ipv4/inet_diag.c`): callers then look up the listener. Replies of the kernel are parsed with the same bounds checks as any other input.
//!
//! The messages are those of `linux/netlink.h`, `linux/sock_diag.h` and `linux/inet_diag.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ROOT | NLM_F_MATCH`: all matching sockets.
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: u8 = 10;
/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Size of `struct inet_diag_req_v2`.
const QUERY: usize = 56;
/// Size of `struct inet_diag_msg`.
const REPLY: usize = 72;
/// Bytes read at once: the kernel splits a dump into pieces of one page or 8 KiB (`NLMSG_GOODSIZE`), or of the longest
/// read so far (`netlink_dump`).
const READ: usize = 8 * 1024;
/// Maximum number of reads of one dump; a longer one is an error: some ten thousand listeners on one port.
const MAX_READS: usize = 256;

/// A TCP socket on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its local address.
    pub address: SocketAddr,
    /// The interface it is bound to; 0 for any.
    pub interface: u32,
    /// Whether it is listening.
    pub listens: bool,
    /// The ID of its cgroup: the inode number of the cgroup's directory. `None` for a connection that is
    /// not in its listener's queue yet, or closed already.
    pub cgroup: Option<u64>,
}

/// How many of the sockets that share an address satisfy a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    All,
    /// Some, but not all.
    Some,
    /// None.
    None,
}

/// A netlink socket to the kernel's socket diagnosis.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// Opens it.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` in a kernel without `CONFIG_INET_DIAG`; `EMFILE`, `ENFILE`.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        Ok(Self(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// The TCP socket that receives a packet from `remote` to `local`, if there is one.
    ///
    /// # Errors
    /// Those of the kernel, except `ENOENT`.
    pub fn reached(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Socket>> {
        self.send(&query(REQUEST, local, remote, u32::MAX))?;
        let mut buffer = [0; 1024];
        let count = self.read(&mut buffer)?;
        match messages(buffer.get(..count).unwrap_or_default()).next() {
            Some(Message::Socket(socket)) => Ok(Some(socket)),
            Some(Message::Error(errno)) if errno == Errno::NOENT.raw_os_error() => Ok(None),
            Some(Message::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Message::Done) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The listening socket that receives a connection to `address`, if there is one.
    ///
    /// # Errors
    /// As [`Self::reached`].
    pub fn listener(&self, address: SocketAddr) -> io::Result<Option<Socket>> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Ok(self.reached(address, SocketAddr::new(any, 0))?.filter(|socket| socket.listens))
    }

    /// How many of the sockets that share the address of the listener `of` satisfy `predicate`: the kernel assigns a
    /// connection to any of them (`SO_REUSEPORT`). After an error, the rest of the reply may be unread: the next reply
    /// would be mixed up with it.
    ///
    /// # Errors
    /// As [`Self::reached`].
    pub fn sharing(&self, of: &Socket, predicate: impl Fn(&Socket) -> bool) -> io::Result<Sharing> {
        let anything = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let local = SocketAddr::new(of.address.ip(), of.address.port());
        self.send(&query(REQUEST | DUMP, local, anything, 1 << LISTEN))?;
        let mut buffer = [0; READ];
        let (mut some, mut others) = (false, false);
        for _ in 0..MAX_READS {
            let count = self.read(&mut buffer)?;
            for message in messages(buffer.get(..count).unwrap_or_default()) {
                match message {
                    Message::Done => {
                        return Ok(match (some, others) {
                            (true, false) => Sharing::All,
                            (true, true) => Sharing::Some,
                            (false, _) => Sharing::None,
                        });
                    }
                    Message::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Message::Socket(found) => {
                        if found.address == of.address && found.interface == of.interface {
                            let found = predicate(&found);
                            (some, others) = (some || found, others || !found);
                        }
                    }
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many sockets listen on one port"))
    }

    fn send(&self, query: &[u8]) -> io::Result<()> {
        // The kernel replies within the call.
        rustix::io::retry_on_intr(|| rustix::net::send(&self.0, query, SendFlags::empty()))?;
        Ok(())
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()));
        Ok(read?.0)
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`. A dump contains only sockets of the requested address family.
fn query(flags: u16, local: SocketAddr, remote: SocketAddr, states: u32) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER + QUERY);
    bytes.extend(u32::try_from(HEADER + QUERY).unwrap_or_default().to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and sender's port; the kernel fills in the port.
    bytes.extend([0; 8]);
    // No extensions: the cgroup is always included.
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(wide(local.ip()));
    bytes.extend(wide(remote.ip()));
    // Any interface, and `INET_DIAG_NOCOOKIE`.
    bytes.extend([0; 4]);
    bytes.extend([u8::MAX; 8]);
    bytes
}

/// An address as the 16 bytes that are used for every address family.
fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut wide = [0; 16];
            wide.iter_mut().zip(ip.octets()).for_each(|(to, from)| *to = from);
            wide
        }
    }
}

/// One message from the kernel.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Socket(Socket),
    Error(i32),
    Done,
}

/// The messages in received bytes, up to the first truncated or unknown one.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
        let body = bytes.get(HEADER..length)?;
        let kind = u16::from_ne_bytes(field(bytes, 4)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        match kind {
            DONE => Some(Message::Done),
            ERROR => Some(Message::Error(i32::from_ne_bytes(field(body, 0)?).saturating_neg())),
            BY_FAMILY => socket(body).map(Message::Socket),
            _ => None,
        }
    })
}

/// `struct inet_diag_msg` and its attributes.
fn socket(body: &[u8]) -> Option<Socket> {
    let family: [u8; 1] = field(body, 0)?;
    let state: [u8; 1] = field(body, 1)?;
    let port = u16::from_be_bytes(field(body, 4)?);
    let ip = if AddressFamily::from_raw(u16::from(family[0])) == AddressFamily::INET {
        IpAddr::V4(Ipv4Addr::from(field::<4>(body, 8)?))
    } else {
        IpAddr::V6(Ipv6Addr::from(field::<16>(body, 8)?))
    };
    Some(Socket {
        address: SocketAddr::new(ip, port),
        interface: u32::from_ne_bytes(field(body, 40)?),
        listens: state == [LISTEN],
        cgroup: attribute(body.get(REPLY..)?, CGROUP_ID)
            .and_then(|value| field(value, 0))
            .map(u64::from_ne_bytes),
    })
}

/// The value of the attribute `wanted` (`struct nlattr`).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(field(bytes, 0)?));
        let kind = u16::from_ne_bytes(field(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_and_its_listener_belong_to_the_cgroup_of_their_process() {
        let diag = Diag::open().unwrap();
        for place in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            let found = diag.listener(at).unwrap().unwrap();
            assert_eq!(found.address, listener.local_addr().unwrap());
            assert!(found.listens && found.cgroup.is_some());
            let client = TcpStream::connect(at).unwrap();
            let waiting = diag.reached(at, client.local_addr().unwrap()).unwrap().unwrap();
            assert_eq!((waiting.listens, waiting.cgroup), (false, found.cgroup));
            let accepted = listener.accept().unwrap();
            drop(listener);
            assert_eq!(diag.reached(at, client.local_addr().unwrap()).unwrap(), Some(waiting));
            drop(accepted);
            assert_eq!(diag.listener(at).unwrap(), None);
        }
    }

    #[test]
    fn a_connection_whose_listener_waits_for_data_has_no_cgroup_yet() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        cloister_sys::tcp::defer_accept(&listener).unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let diag = Diag::open().unwrap();
        let found = diag.reached(at, client.local_addr().unwrap()).unwrap().unwrap();
        assert_eq!((found.listens, found.cgroup), (false, None));
        assert!(diag.listener(at).unwrap().unwrap().cgroup.is_some());
    }

    #[test]
    fn every_socket_that_shares_an_address_is_checked() {
        let make = |ip: [u8; 4], port| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
            rustix::net::bind(&socket, &SocketAddr::from((ip, port))).unwrap();
            rustix::net::listen(&socket, 1).unwrap();
            SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).map(|at| (socket, at)).unwrap()
        };
        let (_one, at) = make([127, 0, 0, 1], 0);
        let _other = make([127, 0, 0, 1], at.port());
        let _elsewhere = make([127, 0, 0, 2], at.port());
        let diag = Diag::open().unwrap();
        let of = diag.listener(at).unwrap().unwrap();
        let seen = std::cell::Cell::new(0);
        let count = |_: &Socket| {
            seen.set(seen.get() + 1);
            true
        };
        assert_eq!(diag.sharing(&of, count).unwrap(), Sharing::All);
        assert_eq!(seen.get(), 2);
        assert_eq!(diag.sharing(&of, |_| false).unwrap(), Sharing::None);
        assert_eq!(diag.sharing(&of, |_| seen.replace(0) == 2).unwrap(), Sharing::Some, "the first of them");
    }

    #[test]
    fn a_query_has_the_kernels_format() {
        let local = "127.0.0.1:80".parse().unwrap();
        let bytes = query(REQUEST, local, "127.0.0.1:81".parse().unwrap(), 1);
        assert_eq!(bytes.len(), HEADER + QUERY);
        assert_eq!(bytes[..8], [72, 0, 0, 0, 20, 0, 1, 0]);
        assert_eq!(bytes[16..28], [2, 6, 0, 0, 1, 0, 0, 0, 0, 80, 0, 81]);
        assert_eq!(bytes[28..32], [127, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn no_reply_is_read_past_its_end(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0u32..400) {
            let mut answer = length.to_ne_bytes().to_vec();
            answer.extend(BY_FAMILY.to_ne_bytes());
            answer.extend([0; 10]);
            answer.extend(&bytes);
            prop_assert!(messages(&answer).count() <= answer.len() / HEADER);
        }
    }
}
