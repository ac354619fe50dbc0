//! Clients that ask all the time.
//!
//! Its law: a refused or broken request is counted and asked again; whether that is a fault is for others to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::http;

/// Clients at once.
const CLIENTS: usize = 3;

/// The pause after each answer: the load is to be there all the time, not to be the most that the machine can carry, which
/// shares its two cores with the enclave's.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a request may take. It is far longer than any restart.
const LIMIT: Duration = Duration::from_secs(20);

/// What the clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Requests that were answered.
    pub(super) answered: u64,
    /// Requests that were not, because something was away.
    pub(super) failed: u64,
    /// The longest time that a client was without an answer.
    pub(super) longest_gap: Duration,
    /// The longest request, answered or not: one that is not refused at once hangs on something that is dead.
    pub(super) longest_request: Duration,
}

/// Clients that run.
#[derive(Debug)]
pub(super) struct Load {
    clients: Vec<JoinHandle<Traffic>>,
    orders: Arc<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    paused: AtomicBool,
    ended: AtomicBool,
}

impl Load {
    /// Begins to ask on this port.
    pub(super) fn begin(port: u16) -> Self {
        let orders = Arc::new(Orders::default());
        let client = |_| {
            let orders = Arc::clone(&orders);
            thread::spawn(move || orders.ask(port))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { clients, orders }
    }

    /// Nothing is asked from now on, or after what is under way.
    pub(super) fn pause(&self) {
        self.orders.paused.store(true, Ordering::Relaxed);
    }

    /// Asking goes on.
    pub(super) fn go_on(&self) {
        self.orders.paused.store(false, Ordering::Relaxed);
        self.clients.iter().for_each(|client| client.thread().unpark());
    }

    /// Asking is over.
    pub(super) fn end(self) -> Traffic {
        self.orders.ended.store(true, Ordering::Relaxed);
        let seen = self.clients.into_iter().map(|client| {
            client.thread().unpark();
            client.join().unwrap_or_default()
        });
        seen.fold(Traffic::default(), Traffic::and)
    }
}

impl Orders {
    fn ask(&self, port: u16) -> Traffic {
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
