//! The heartbeat that the parent of a Nitro enclave waits for: one byte out, the same byte back
//! (aws-nitro-enclaves-sdk-bootstrap, `init.c`).
//!
//! Its law: it is the one connection this system dials, nothing depends on its answer, and nothing waits for it: a process
//! of its own dials and says on the console what came of it.

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

/// For the whole of it. A parent answers within a few milliseconds, and waits for minutes; QEMU's has nobody who answers.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts the process. Without it, which takes a machine without memory, the parent hears nothing and nothing else changes.
pub(super) fn start() {
    let Ok(folder) = File::open(cgroup::MOUNT) else { return };
    if let Ok(Fork::Child(child)) = fork_into(folder) {
        let mut console = Console::new();
        let words = beat();
        console.open();
        console.say(words);
        child.exit(0)
    }
}

/// Sends the byte and says in a few words what came back.
fn beat() -> &'static str {
    match exchange() {
        Ok(NITRO_HEARTBEAT_BYTE) => "heartbeat answered",
        Ok(_) => "heartbeat answered wrongly",
        Err(error) if error.kind() == io::ErrorKind::TimedOut => "heartbeat not answered",
        Err(_) => "heartbeat not taken",
    }
}

fn exchange() -> io::Result<u8> {
    let end = Instant::now() + LIMIT;
    let parent = vsock::connect(Address { cid: NITRO_PARENT_CID, port: NITRO_HEARTBEAT }, LIMIT)?;
    rustix::net::send(&parent, &[NITRO_HEARTBEAT_BYTE], rustix::net::SendFlags::NOSIGNAL)?;
    await_answer(&parent, end)?;
    let mut answer = [0];
    match rustix::io::read(&parent, &mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

fn await_answer(parent: &OwnedFd, end: Instant) -> io::Result<()> {
    let timeout = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
    match rustix::event::poll(&mut [PollFd::new(parent, PollFlags::IN)], timeout.as_ref())? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
