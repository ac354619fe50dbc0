//! The service of the boot benchmark: it answers every connection with three timestamps of the guest's clock.
//!
//! Invariant: the same program on the same root, regardless of the init. Where vsock sockets are allowed, it is reached over
//! vsock without a relay; in an enclave they are refused, and it is reached through ingress.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::thread;

use cloister_bench::ports;
use cloister_sys::vsock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

/// Connections in the listen queue.
const BACKLOG: u32 = 16;

fn main() -> io::Result<()> {
    let began = now();
    let init = std::env::args().nth(1).unwrap_or_else(|| "0".to_owned());
    let tcp = TcpListener::bind(("0.0.0.0", ports::SERVICE))?;
    if let Ok(listener) = vsock::listen(ports::RAW, BACKLOG) {
        let init = init.clone();
        thread::spawn(move || {
            loop {
                // The listener is non-blocking; an error shows as a service that never answers.
                poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).ok();
                if let Ok((client, _)) = vsock::accept(&listener) {
                    answer(std::fs::File::from(client), &init, began);
                }
            }
        });
    }
    // Goes to the console under a plain init, and to the log in an enclave.
    writeln!(io::stdout(), "listening")?;
    loop {
        let (client, _) = tcp.accept()?;
        answer(std::fs::File::from(OwnedFd::from(client)), &init, began);
    }
}

/// Sends one line: the start of init, the start of this program, and now, in microseconds since the guest's clock started.
fn answer(mut client: impl Write, init: &str, began: i64) {
    // A client that has disconnected needs no response.
    drop(writeln!(client, "{init} {began} {}", now()));
}

fn now() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}
