//! What guest halves share: small servers and the words they get.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// How often a guest looks for something that has no event to wait for: often enough for a story of seconds, seldom enough
/// to leave a translated processor to others.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A service that answers every HTTP request on `port` with what `answer` makes of its path.
pub fn serve_http(port: u16, answer: impl Fn(&str) -> String) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for client in listener.incoming() {
        // A client that goes away is no reason for a service to end.
        drop(client.and_then(|client| answer_one(client, &answer)));
    }
    Ok(())
}

fn answer_one(mut client: TcpStream, answer: impl Fn(&str) -> String) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let n = client.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
    let head = String::from_utf8_lossy(&head);
    let body = answer(head.split(' ').nth(1).unwrap_or("/"));
    write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Kills the supervisor, which takes a lab's sender. `NotFound` where there is none at this moment.
pub fn kill_supervisor() -> std::io::Result<()> {
    send_from_outside(find_process("supervisor")?, Signal::KILL.as_raw())
}

/// Where `init/examples/trial-init.rs` has a process that sends signals.
const SENDER: &str = "trial/signals";

/// Has a signal sent to any process by one that is no service: a service's own signals stay with it.
/// [`crate::Lab::boot_with_sender`] puts it there.
pub fn send_from_outside(to: Pid, signal: i32) -> std::io::Result<()> {
    let mut sender = UnixStream::connect_addr(&SocketAddr::from_abstract_name(SENDER)?)?;
    write!(sender, "{} {signal}", to.as_raw_nonzero())?;
    sender.shutdown(Shutdown::Write)?;
    let mut errno = String::new();
    sender.read_to_string(&mut errno)?;
    match errno.parse().map_err(std::io::Error::other)? {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno)),
    }
}

/// The machine's processes, by init's numbers, where [`crate::Lab::boot_with_sender`] shows them: in `/proc` a service sees
/// its own.
pub const MACHINE: &str = "/machine";

/// The process of this name (`comm`) among the [machine's](MACHINE).
pub fn find_process(name: &str) -> std::io::Result<Pid> {
    for entry in std::fs::read_dir(MACHINE)? {
        let entry = entry?;
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = number.filter(|_| comm.trim_end() == name) {
            return Ok(pid);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

/// The process of a servant among the [machine's](MACHINE): it is known by its cgroup.
pub fn find_servant(name: &str) -> std::io::Result<Pid> {
    for entry in std::fs::read_dir(MACHINE)? {
        let entry = entry?;
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = number.filter(|_| cgroup.trim_end().ends_with(&format!("/servants/{name}"))) {
            return Ok(pid);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

/// For scenarios whose story never gets to a guest.
#[must_use]
pub fn nobody(_words: &[String]) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}

/// Writes all of `bytes` to stdout; a pipe that nobody reads makes it wait, as it does for any service.
pub fn say(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes)?;
    out.flush()
}

/// How often this was asked of `file` before, by any process of the root, whose every restart asks once.
///
/// `/tmp` is a service's own and new with each start; the rest of the root outlives the process.
pub fn attempts(file: &str) -> std::io::Result<usize> {
    let before = std::fs::read(file).unwrap_or_default().len();
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(b"x")?;
    Ok(before)
}

/// Waits until another service has made this file in the root that they share.
pub fn wait_for_file(file: &str) -> std::io::Result<()> {
    while !std::fs::exists(file)? {
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Ok(())
}

/// Says something to the supervisor, as `sd_notify(3)` does.
pub fn notify(words: &str) -> std::io::Result<()> {
    let address = std::env::var("NOTIFY_SOCKET").map_err(std::io::Error::other)?;
    let name = address.strip_prefix('@').ok_or(std::io::ErrorKind::InvalidInput)?;
    let to = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &to).map(drop)
}

/// Catches a signal from now on; [`Caught::wait`] waits for it.
pub fn catch(signal: Signal) -> std::io::Result<Caught> {
    catch_number(signal.as_raw())
}

/// The same for a signal that has no name of its own.
pub fn catch_number(signal: i32) -> std::io::Result<Caught> {
    Ok(Caught(signal_hook::iterator::Signals::new([signal])?))
}

/// A signal that is caught.
#[derive(Debug)]
pub struct Caught(signal_hook::iterator::Signals);

impl Caught {
    /// Waits until the signal has come.
    pub fn wait(&mut self) -> std::io::Result<()> {
        self.0.forever().next().map(drop).ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}
