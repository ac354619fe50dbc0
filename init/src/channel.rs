//! The socket pair to the supervisor: frames and the descriptors sent with them, in both directions.
//!
//! Invariant: it never waits for the supervisor, and buffers a bounded amount for it. A supervisor that does not read, or sends
//! an invalid message, loses the channel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use cloister_sys::fdpass::{MAX_FDS, recv_with_fds, send_with_fds};
use cloister_wire::frame::{self, Decoder, HOLD_LIMIT};
use cloister_wire::hold::{FromInit, FromSupervisor, RawState};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Bytes read at a time. Frames are small, except spawns that contain files.
const READ: usize = 16 * 1024;

/// Maximum bytes buffered for a supervisor that does not read: a few of the longest frames, or thousands of exits.
const MAX_QUEUED: usize = 4 * 1024 * 1024;

/// Maximum number of descriptors received before their frame: those of one message, since no frame needs more.
const MAX_WAITING_FDS: usize = MAX_FDS;

/// Init's end of it.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    arrived: VecDeque<OwnedFd>,
    queue: VecDeque<Outgoing>,
    queued: usize,
}

/// A message and its descriptors.
pub type Request = (FromSupervisor<RawState>, Vec<OwnedFd>);

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: VecDeque<Rc<OwnedFd>>,
}

/// Why the channel to the supervisor is unusable.
#[derive(Debug)]
pub enum ChannelError {
    /// It closed its end.
    Closed,
    /// It does not read.
    Full,
    /// It sent an invalid message, or the wrong number of descriptors.
    Invalid(String),
    /// The socket failed.
    Socket(io::Error),
}

impl std::fmt::Display for ChannelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed its channel to init"),
            Self::Full => write!(f, "it left {MAX_QUEUED} bytes from init unread"),
            Self::Invalid(why) => write!(f, "it sent an invalid message ({why})"),
            Self::Socket(error) => write!(f, "its channel to init failed ({error})"),
        }
    }
}

impl std::error::Error for ChannelError {}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The second is reported if it exited with unread data of ours.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Socket(error),
        }
    }
}

/// Both ends of a new channel: init's, and the supervisor's.
pub fn pair() -> io::Result<(Channel, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let channel = Channel {
        socket: near,
        decoder: Decoder::new(HOLD_LIMIT),
        arrived: VecDeque::new(),
        queue: VecDeque::new(),
        queued: 0,
    };
    Ok((channel, far))
}

impl Channel {
    /// Queues a message with its descriptors and sends as much as the socket accepts.
    pub fn send(&mut self, message: &FromInit, fds: Vec<Rc<OwnedFd>>) -> Result<(), ChannelError> {
        let bytes = frame::encode(message, HOLD_LIMIT)
            .map_err(|error| ChannelError::Socket(io::Error::other(error)))?;
        self.queued = self.queued.saturating_add(bytes.len());
        if self.queued > MAX_QUEUED {
            return Err(ChannelError::Full);
        }
        self.queue.push_back(Outgoing { bytes, sent: 0, fds: fds.into() });
        self.flush()
    }

    /// Sends as much as the socket accepts.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(out) = self.queue.front_mut() {
            match out.send(&self.socket) {
                Ok(()) => {
                    self.queued = self.queued.saturating_sub(out.bytes.len());
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether there is unsent data.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Reads once; [`Self::next_request`] returns the messages.
    pub fn receive(&mut self) -> Result<(), ChannelError> {
        let mut buffer = [0; READ];
        match recv_with_fds(&self.socket, &mut buffer) {
            Ok((0, _)) => Err(ChannelError::Closed),
            Ok((n, fds)) => {
                self.arrived.extend(fds);
                self.decoder.push(buffer.get(..n).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next complete message and its descriptors.
    pub fn next_request(&mut self) -> Result<Option<Request>, ChannelError> {
        let invalid = |error: frame::FrameError| ChannelError::Invalid(error.to_string());
        let Some(message) = self.decoder.next_message::<FromSupervisor<RawState>>().map_err(invalid)? else {
            if self.arrived.len() > MAX_WAITING_FDS {
                return Err(ChannelError::Invalid("descriptors without a frame".into()));
            }
            return Ok(None);
        };
        let count = usize::from(match &message {
            FromSupervisor::Spawn { spec, .. } => spec.fds,
            FromSupervisor::Stash { fds, .. } => *fds,
            _ => 0,
        });
        if self.arrived.len() < count {
            return Err(ChannelError::Invalid(format!(
                "{count} descriptors expected, {} received",
                self.arrived.len()
            )));
        }
        Ok(Some((message, self.arrived.drain(..count).collect())))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outgoing {
    /// Sends the rest. If there are more descriptors than fit into one message, they are spread over the frame's first bytes.
    fn send(&mut self, socket: &OwnedFd) -> io::Result<()> {
        while let Some(left) = self.bytes.get(self.sent..).filter(|left| !left.is_empty()) {
            let now = self.fds.len().min(MAX_FDS);
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().take(now).map(|fd| fd.as_fd()).collect();
            let bytes = if self.fds.len() > now { left.get(..1).unwrap_or(left) } else { left };
            let sent = send_with_fds(socket, bytes, &fds)?;
            self.sent = self.sent.saturating_add(sent);
            self.fds.drain(..now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    use std::io::{Read, Write};

    use cloister_wire::control::{Cause, Exit};
    use cloister_wire::hold::{Ended, Held, MAX_HELD, MAX_STASHES, Welcome};

    fn peer() -> (Channel, UnixStream) {
        let (channel, far) = pair().unwrap();
        let far = UnixStream::from(far);
        far.set_nonblocking(false).unwrap();
        (channel, far)
    }

    /// The longest possible welcome: everything that init can hold, with names and exits of maximum length.
    fn longest_welcome() -> Welcome {
        let held = |number: usize| {
            let name = format!("@{number:062}");
            let exit = Exit::Signal { signal: 64, cause: Cause::OutOfMemory };
            let ended = Some(Ended { name: name.clone(), pid: u32::MAX, exit, at_ns: u64::MAX });
            Held { name, pid: u32::MAX, at_ns: u64::MAX, ended, cgroup: u64::MAX, populated: false, fds: 2 }
        };
        Welcome {
            stash: (0..MAX_STASHES).map(|number| format!("{number:063}")).collect(),
            held: (0..MAX_HELD).map(held).collect(),
            ..Welcome::default()
        }
    }

    #[test]
    fn everything_that_init_can_hold_is_handed_over_in_order() {
        let (mut channel, far) = peer();
        let welcome = longest_welcome();
        let count = MAX_STASHES + 2 * MAX_HELD;
        let files: Vec<_> = (0..count).map(|_| tempfile::tempfile().unwrap()).collect();
        for (number, file) in files.iter().enumerate() {
            (&mut &*file).write_all(&u16::try_from(number).unwrap().to_be_bytes()).unwrap();
        }
        let fds = files.into_iter().map(|file| Rc::new(OwnedFd::from(file))).collect();
        channel.send(&FromInit::Welcome(welcome.clone()), fds).unwrap();
        let (mut decoder, mut fds) = (Decoder::new(HOLD_LIMIT), Vec::new());
        let message = loop {
            let mut buffer = [0; 512];
            let (n, some) = recv_with_fds(&far, &mut buffer).unwrap();
            fds.extend(some);
            decoder.push(&buffer[..n]);
            if let Some(message) = decoder.next_message::<FromInit>().unwrap() {
                break message;
            }
        };
        assert_eq!(message, FromInit::Welcome(welcome));
        assert_eq!(fds.len(), count);
        for (number, fd) in fds.iter().enumerate() {
            let mut bytes = [0; 2];
            rustix::io::pread(fd, &mut bytes, 0).unwrap();
            assert_eq!(usize::from(u16::from_be_bytes(bytes)), number);
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_fills_a_bounded_queue() {
        let (mut channel, _far) = peer();
        let why = "x".repeat(64 * 1024);
        let full =
            (0..1000).find_map(|_| channel.send(&FromInit::StopRequested { why: why.clone() }, vec![]).err());
        assert!(matches!(full, Some(ChannelError::Full)));
    }

    #[test]
    fn queued_messages_are_sent_when_the_supervisor_reads_again() {
        let (mut channel, mut far) = peer();
        let why = "x".repeat(512 * 1024);
        channel.send(&FromInit::StopRequested { why }, vec![]).unwrap();
        assert!(channel.is_waiting());
        let reader = std::thread::spawn(move || {
            let mut length = [0; 4];
            far.read_exact(&mut length).unwrap();
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            far.read_exact(&mut body).unwrap();
            body.len()
        });
        while channel.is_waiting() {
            let mut ready = [rustix::event::PollFd::new(&channel, rustix::event::PollFlags::OUT)];
            rustix::event::poll(&mut ready, None).unwrap();
            channel.flush().unwrap();
        }
        assert_eq!(reader.join().unwrap(), 512 * 1024 + r#"{"stop-requested":{"why":""}}"#.len());
    }

    #[test]
    fn an_invalid_message_is_distinguished_from_a_closed_channel() {
        let (mut channel, mut far) = peer();
        far.write_all(b"\0\0\0\x02{}").unwrap();
        channel.receive().unwrap();
        assert!(matches!(channel.next_request(), Err(ChannelError::Invalid(_))));
        drop(far);
        assert!(matches!(channel.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_spawn_without_its_descriptors_is_invalid() {
        let (mut channel, mut far) = peer();
        let spawn = r#"{"spawn":{"name":"@net","spec":{"argv":["/x"],"env":[],"place":"empty","uid":0,"gid":0,
            "groups":[],"capabilities":0,"seccomp":[],
            "limits":{"memory":null,"cpu_millis":null,"pids":null,"open_files":null},"fds":2}}}"#;
        far.write_all(&frame::encode_bytes(spawn.as_bytes(), HOLD_LIMIT).unwrap()).unwrap();
        channel.receive().unwrap();
        let Err(ChannelError::Invalid(why)) = channel.next_request() else { panic!("it was accepted") };
        assert_eq!(why, "2 descriptors expected, 0 received");
    }
}
