//! The sockets that listen on a port, from `/proc/net/tcp` and `/proc/net/tcp6`.
//!
//! Its law: it is known which of them the kernel gives a connection to (`compute_score` of `net/ipv4/inet_hashtables.c`),
//! and where that cannot be known, all that could get it count. The lists are read for all ports together, and never take
//! more than a fifth of the supervisor's time, whoever listens how often.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The kernel gives such a list a page at a time, listeners first (`tcp_seq_start`, `net/ipv4/tcp_ipv4.c`): with a buffer of
/// a page, few others are written out for nothing.
const PAGE: usize = 4096;

/// Most rows that are read of each list, so that a look-up has an end. A program that keeps more listeners can hide others
/// behind its own; a list that was cut therefore says nothing of what is not in it.
const MAX_ROWS: usize = 16_384;

/// `TCP_LISTEN` of `net/tcp_states.h`, as the list writes it.
const LISTEN: &str = "0A";

/// A socket that listens: where, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    ip: IpAddr,
    inode: u64,
}

/// What listens on a port.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) sockets: Vec<Listening>,
    /// There are more listeners than are read.
    pub(super) is_cut: bool,
    /// The lists were read for this question.
    pub(super) is_new: bool,
}

/// How long a reading stands, in times of what it took: a list of few listeners is read anew for every question, one of
/// thousands, which takes milliseconds, is not.
const STANDS: u32 = 4;

/// The longest that a reading stands, however long it took.
const MAX_STANDS: Duration = Duration::from_secs(1);

/// The lists, as they were read last.
#[derive(Debug)]
pub(super) struct Table {
    proc: PathBuf,
    last: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    until: Instant,
    ports: BTreeMap<u16, Vec<Listening>>,
    cut: bool,
}

impl Table {
    /// Nothing is read yet.
    pub(super) const fn new(proc: PathBuf) -> Self {
        Self { proc, last: Mutex::new(None) }
    }

    /// What listens on `port`.
    pub(super) fn listening(&self, port: u16) -> io::Result<Found> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = last.take().filter(|reading| Instant::now() < reading.until);
        let is_new = standing.is_none();
        let reading = match standing {
            Some(reading) => reading,
            None => Reading::now(&self.proc)?,
        };
        let sockets = reading.ports.get(&port).cloned().unwrap_or_default();
        let found = Found { sockets, is_cut: reading.cut, is_new };
        *last = Some(reading);
        Ok(found)
    }
}

impl Reading {
    fn now(proc: &Path) -> io::Result<Self> {
        let began = Instant::now();
        let (mut ports, mut cut) = (BTreeMap::new(), false);
        for list in ["tcp", "tcp6"] {
            match File::open(proc.join("net").join(list)) {
                Ok(file) => cut |= read(BufReader::with_capacity(PAGE, file), &mut ports)?,
                // A kernel without IPv6.
                Err(error) if error.kind() == ErrorKind::NotFound && list == "tcp6" => {}
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        Ok(Self { until: now + stands(now.duration_since(began)), ports, cut })
    }
}

/// How long a reading stands that took so long.
fn stands(took: Duration) -> Duration {
    took.saturating_mul(STANDS).min(MAX_STANDS)
}

/// Adds what listens. Whether the list goes on past what is read.
fn read(mut list: impl BufRead, ports: &mut BTreeMap<u16, Vec<Listening>>) -> io::Result<bool> {
    let mut line = String::new();
    list.read_line(&mut line)?;
    for _ in 0..MAX_ROWS {
        line.clear();
        if list.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, state) = (fields.next().unwrap_or_default(), fields.nth(1));
        if state != Some(LISTEN) {
            return Ok(false);
        }
        let inode = fields.nth(5).and_then(|text| text.parse().ok());
        if let (Some((ip, port)), Some(inode)) = (address(local), inode) {
            ports.entry(port).or_default().push(Listening { ip, inode });
        }
    }
    Ok(true)
}

/// `0100007F:0050`: words of 32 bits as the machine holds them, then the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let word =
        |at: usize| u32::from_str_radix(ip.get(at..at.saturating_add(8))?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (place, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(place.saturating_mul(8))?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

/// The sockets that a connection to `to` can reach: those bound to it, else those of its family bound to any address, else
/// those of IPv6 bound to any, which take IPv4 too unless they do not want to. Several share a port by `SO_REUSEPORT`.
pub(super) fn reached(listening: &[Listening], to: IpAddr) -> Vec<u64> {
    let any = |ip: IpAddr| ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4();
    let classes: [&dyn Fn(IpAddr) -> bool; 3] =
        [&|ip: IpAddr| ip.to_canonical() == to, &any, &|ip: IpAddr| ip.is_unspecified() && ip.is_ipv6()];
    let of = |class: &dyn Fn(IpAddr) -> bool| -> Vec<u64> {
        listening.iter().filter(|socket| class(socket.ip)).map(|socket| socket.inode).collect()
    };
    classes.into_iter().map(of).find(|inodes| !inodes.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// Rows as a 6.12 kernel on a little-endian machine writes them.
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1201 1 0000000000000000 100 0 0 10 0
   1: 00000000:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1202 1 0000000000000000 100 0 0 10 0
   2: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 1203 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1204 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address rem_address st
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 1301 1
   1: 00000000000000000000000000000000:0052 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 1302 1
   2: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 1303 1
";

    fn found(port: u16) -> Vec<Listening> {
        let mut found = BTreeMap::new();
        for list in [TCP, TCP6] {
            assert!(!read(list.as_bytes(), &mut found).unwrap(), "it was read to its end");
        }
        found.remove(&port).unwrap_or_default()
    }

    /// A folder that stands for `/proc`, with rows of this many listeners.
    fn proc(listeners: usize) -> tempfile::TempDir {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("net")).unwrap();
        let (header, rows) = TCP.split_once('\n').unwrap();
        let row = rows.lines().next().unwrap();
        let rows: String = std::iter::repeat_n(format!("{row}\n"), listeners).collect();
        std::fs::write(folder.path().join("net/tcp"), format!("{header}\n{rows}")).unwrap();
        folder
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        assert!(Table::new(proc(MAX_ROWS).path().to_owned()).listening(80).unwrap().is_cut);
        let found = Table::new(proc(MAX_ROWS - 1).path().to_owned()).listening(80).unwrap();
        assert!(!found.is_cut);
        assert_eq!(found.sockets.len(), MAX_ROWS - 1);
    }

    #[test]
    fn a_reading_stands_for_four_times_what_it_took_and_for_a_second_at_most() {
        let millis = Duration::from_millis;
        assert_eq!(stands(millis(10)), millis(40));
        assert_eq!(stands(millis(400)), millis(1_000));
    }

    #[test]
    fn while_a_reading_stands_no_list_is_read() {
        let folder = proc(3);
        let table = Table::new(folder.path().to_owned());
        let found = || {
            let found = table.listening(80).unwrap();
            (found.sockets.len(), found.is_new)
        };
        let until = |until| table.last.lock().unwrap().as_mut().unwrap().until = until;
        assert_eq!(found(), (3, true));
        until(Instant::now() + MAX_STANDS * 3600);
        std::fs::write(folder.path().join("net/tcp"), TCP).unwrap();
        assert_eq!(found(), (3, false));
        until(Instant::now());
        assert_eq!(found(), (1, true));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listeners_of_the_port_are_found_and_nothing_is_read_past_them() {
        assert_eq!(found(80), [Listening { ip: V4, inode: 1201 }, Listening { ip: V6, inode: 1301 }]);
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(found(81), [Listening { ip: any, inode: 1202 }]);
        assert_eq!(found(83), []);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_connection_reaches_who_is_bound_closest_to_its_address() {
        assert_eq!((reached(&found(80), V4), reached(&found(80), V6)), (vec![1201], vec![1301]));
        assert_eq!((reached(&found(81), V4), reached(&found(81), V6)), (vec![1202], vec![]));
        assert_eq!((reached(&found(82), V4), reached(&found(82), V6)), (vec![1303], vec![1302]));
    }

    #[test]
    fn any_address_of_ipv6_takes_ipv4_where_nobody_of_that_family_does() {
        let any = Listening { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), inode: 7 };
        assert_eq!((reached(&[any], V4), reached(&[any], V6)), (vec![7], vec![7]));
        let four = Listening { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), inode: 8 };
        assert_eq!((reached(&[any, four], V4), reached(&[any, four], V6)), (vec![8], vec![7]));
    }
}
