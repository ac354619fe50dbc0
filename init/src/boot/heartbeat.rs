//! The heartbeat that the parent of a Nitro enclave waits for: one byte is sent, and the same byte is received
//! (aws-nitro-enclaves-sdk-bootstrap, `init.c`).
//!
//! Invariant: it is the only outgoing connection of this system; nothing depends on the response or waits for it. A process
//! of its own connects and prints the result on the console.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cloister_sys::process::{Fork, fork_into};
use cloister_sys::vsock::{self, Address};
use cloister_wire::ports::{NITRO_HEARTBEAT, NITRO_HEARTBEAT_BYTE, NITRO_PARENT_CID};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cgroup;
use crate::console::Console;

/// For the whole exchange. A parent responds within a few milliseconds, and waits for minutes; under QEMU no process responds.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts the process. If that fails, for lack of memory, the parent receives no heartbeat; nothing else changes.
pub(super) fn start() {
    let Ok(directory) = File::open(cgroup::MOUNT) else { return };
    if let Ok(Fork::Child(child)) = fork_into(directory) {
        let mut console = Console::new();
        let result = run();
        console.open();
        console.print(result);
        child.exit(0)
    }
}

/// Sends the byte and describes the result.
fn run() -> &'static str {
    match exchange() {
        Ok(NITRO_HEARTBEAT_BYTE) => "heartbeat answered",
        Ok(_) => "heartbeat: wrong response",
        Err(error) if error.kind() == io::ErrorKind::TimedOut => "heartbeat: timed out",
        Err(_) => "heartbeat failed",
    }
}

fn exchange() -> io::Result<u8> {
    let end = Instant::now() + LIMIT;
    let parent = vsock::connect(Address { cid: NITRO_PARENT_CID, port: NITRO_HEARTBEAT }, LIMIT)?;
    rustix::net::send(&parent, &[NITRO_HEARTBEAT_BYTE], rustix::net::SendFlags::NOSIGNAL)?;
    await_response(&parent, end)?;
    let mut response = [0];
    match rustix::io::read(&parent, &mut response)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(response[0]),
    }
}

fn await_response(parent: &OwnedFd, end: Instant) -> io::Result<()> {
    let timeout = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
    match rustix::event::poll(&mut [PollFd::new(parent, PollFlags::IN)], timeout.as_ref())? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
