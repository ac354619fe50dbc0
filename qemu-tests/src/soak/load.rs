//! Clients that send requests all the time.
//!
//! Invariant: a refused or broken request is counted and repeated; whether it is a failure is decided elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::http;

/// Clients at once.
const CLIENTS: usize = 3;

/// The pause after each answer: the load must be constant, not the maximum that the machine can serve, which shares its two
/// cores with the enclave.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a request may take. It is far longer than any restart.
const LIMIT: Duration = Duration::from_secs(20);

/// What the clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Requests that were answered.
    pub(super) answered: u64,
    /// Requests that were not, because a part was restarting.
    pub(super) failed: u64,
    /// The longest time that a client was without an answer.
    pub(super) longest_gap: Duration,
    /// The longest request, answered or not: one that is not refused at once hangs on something dead.
    pub(super) longest_request: Duration,
}

/// The running clients.
#[derive(Debug)]
pub(super) struct Load {
    clients: Vec<JoinHandle<Traffic>>,
    commands: Arc<Commands>,
}

#[derive(Debug, Default)]
struct Commands {
    paused: AtomicBool,
    ended: AtomicBool,
}

impl Load {
    /// Starts the clients on this port.
    pub(super) fn begin(port: u16) -> Self {
        let commands = Arc::new(Commands::default());
        let client = |_| {
            let commands = Arc::clone(&commands);
            thread::spawn(move || commands.run_client(port))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { clients, commands }
    }

    /// Sends no new request from now on; one in progress is finished.
    pub(super) fn pause(&self) {
        self.commands.paused.store(true, Ordering::Relaxed);
    }

    /// Sends requests again.
    pub(super) fn resume(&self) {
        self.commands.paused.store(false, Ordering::Relaxed);
        self.clients.iter().for_each(|client| client.thread().unpark());
    }

    /// Stops the clients.
    pub(super) fn end(self) -> Traffic {
        self.commands.ended.store(true, Ordering::Relaxed);
        let seen = self.clients.into_iter().map(|client| {
            client.thread().unpark();
            client.join().unwrap_or_default()
        });
        seen.fold(Traffic::default(), Traffic::and)
    }
}

impl Commands {
    fn run_client(&self, port: u16) -> Traffic {
        let (mut seen, mut last) = (Traffic::default(), Instant::now());
        while !self.ended.load(Ordering::Relaxed) {
            if self.paused.load(Ordering::Relaxed) {
                thread::park_timeout(LIMIT);
                last = Instant::now();
                continue;
            }
            let began = Instant::now();
            let answered = http::get(port, "/", LIMIT).is_ok_and(|answer| answer.status == 200);
            seen.longest_request = seen.longest_request.max(began.elapsed());
            if answered {
                seen.answered = seen.answered.saturating_add(1);
                seen.longest_gap = seen.longest_gap.max(last.elapsed());
                last = Instant::now();
            } else {
                seen.failed = seen.failed.saturating_add(1);
            }
            thread::park_timeout(PAUSE);
        }
        seen
    }
}

impl Traffic {
    fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
            longest_gap: self.longest_gap.max(other.longest_gap),
            longest_request: self.longest_request.max(other.longest_request),
        }
    }
}
