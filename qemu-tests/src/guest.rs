//! Shared parts of guest halves: small servers, signals and notifications.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

use cloister_wire::control::State;
use cloister_wire::frame::{HOLD_LIMIT, encode};
use cloister_wire::hold::{FromSupervisor, SUPERVISOR_FD};
use rustix::process::{Pid, Signal};

/// How often a guest checks for something that has no event to wait for: often enough for a scenario of seconds, rarely
/// enough to leave an emulated processor to others.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Runs an HTTP server on `port` that answers every request with `answer` of its path.
pub fn serve_http(port: u16, answer: impl Fn(&str) -> String) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for client in listener.incoming() {
        // A client that disconnects is no reason for the service to exit.
        drop(client.and_then(|client| answer_one(client, &answer)));
    }
    Ok(())
}

/// Answers one HTTP request with `answer` of its path.
pub fn answer_one(mut client: TcpStream, answer: impl Fn(&str) -> String) -> std::io::Result<()> {
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

/// Kills the supervisor through the lab's signal sender. `NotFound` while none is running.
pub fn kill_supervisor() -> std::io::Result<()> {
    send_from_outside(find_process("supervisor")?, Signal::KILL.as_raw())
}

/// The address of the process that sends signals (`init/examples/trial-init.rs`).
const SENDER: &str = "trial/signals";

/// Sends a signal to any process, from a process outside of all services: a service's own signals cannot leave it.
/// [`crate::Lab::boot_with_sender`] starts that process.
pub fn send_from_outside(to: Pid, signal: i32) -> std::io::Result<()> {
    match request_outside(to, &signal.to_string())?.parse().map_err(std::io::Error::other)? {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno)),
    }
}

/// What the open descriptors of a servant refer to, as `/proc/PID/fd` shows it: the kinds, sorted, without the numbers
/// that differ between runs. The process of [`send_from_outside`] reads them: a service is not allowed to.
pub fn servant_descriptors(name: &str) -> std::io::Result<String> {
    let targets = request_outside(find_servant(name)?, "descriptors")?;
    let mut kinds: Vec<String> =
        targets.lines().map(|line| line.replace(|c: char| c.is_ascii_digit(), "")).collect();
    kinds.sort();
    kinds.dedup();
    Ok(kinds.join(", "))
}

/// These lines of a servant's `/proc/PID/status`, as `NAME VALUE, …`.
pub fn servant_status(name: &str, fields: &[&str]) -> std::io::Result<String> {
    let pid = find_servant(name)?;
    let status = std::fs::read_to_string(format!("{MACHINE}/{}/status", pid.as_raw_nonzero()))?;
    let field = |name: &&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        format!("{name} {}", line.unwrap_or_default().trim())
    };
    Ok(fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

fn request_outside(about: Pid, action: &str) -> std::io::Result<String> {
    let mut outside = UnixStream::connect_addr(&SocketAddr::from_abstract_name(SENDER)?)?;
    write!(outside, "{} {action}", about.as_raw_nonzero())?;
    outside.shutdown(Shutdown::Write)?;
    let mut response = String::new();
    outside.read_to_string(&mut response)?;
    Ok(response)
}

/// The machine's processes, by their numbers in init's namespace, where [`crate::Lab::boot_with_sender`] mounts them:
/// `/proc` shows a service only its own.
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

/// The process of a servant among the [machine's](MACHINE), identified by its cgroup.
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

/// For scenarios that never start a guest.
#[must_use]
pub fn no_guest(_args: &[String]) -> ExitCode {
    ExitCode::FAILURE
}

/// Writes all of `bytes` to stdout. It blocks while the pipe is full, as for any service.
pub fn print(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes)?;
    out.flush()
}

/// How often this was called for `file` before, by any process of the root. A service calls it once per start.
///
/// `/tmp` is private to a service and new with each start; the rest of the root outlives the process.
pub fn attempts(file: &str) -> std::io::Result<usize> {
    let before = std::fs::read(file).unwrap_or_default().len();
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(b"x")?;
    Ok(before)
}

/// Waits until another service has created this file in the shared root.
pub fn wait_for_file(file: &str) -> std::io::Result<()> {
    while !std::fs::exists(file)? {
        std::thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

/// Notifies the supervisor, as `sd_notify(3)` does.
pub fn notify(message: &str) -> std::io::Result<()> {
    let address = std::env::var("NOTIFY_SOCKET").map_err(std::io::Error::other)?;
    let name = address.strip_prefix('@').ok_or(std::io::ErrorKind::InvalidInput)?;
    let to = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &to).map(drop)
}

/// Powers the machine off with this exit code. Only for a guest half that is the supervisor
/// ([`crate::lab::Release::with_guest_as_supervisor`]); init ends it.
#[must_use]
pub fn power_off(code: u8) -> ExitCode {
    let state = State::Exited { service: "web".into(), code };
    let request = encode(&FromSupervisor::PowerOff { state }, HOLD_LIMIT).map_err(std::io::Error::other);
    let sent = cloister_sys::inherited::copy(SUPERVISOR_FD)
        .and_then(|channel| Ok(rustix::io::write(&channel, &request?)?))
        .and_then(|_| Ok(rustix::event::poll(&mut [], None)?));
    drop(print(format!("trial: not powered off: {sent:?}\n").as_bytes()));
    ExitCode::FAILURE
}

/// Catches a signal from now on; [`Caught::wait`] waits for it.
pub fn catch(signal: Signal) -> std::io::Result<Caught> {
    catch_number(signal.as_raw())
}

/// The same for a signal without a name.
pub fn catch_number(signal: i32) -> std::io::Result<Caught> {
    Ok(Caught(signal_hook::iterator::Signals::new([signal])?))
}

/// A caught signal.
#[derive(Debug)]
pub struct Caught(signal_hook::iterator::Signals);

impl Caught {
    /// Waits until the signal has arrived.
    pub fn wait(&mut self) -> std::io::Result<()> {
        self.0.forever().next().map(drop).ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}
