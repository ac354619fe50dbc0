//! Decides what is killed when.
//!
//! Invariant: each order has a number and is carried out once. A missing answer proves nothing, so the kills are read from the
//! killer's counts.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::killer::Census;
use super::log::Log;
use super::{GATEWAY, SUPERVISOR, VICTIMS};
use crate::Outcome;
use crate::lab::Running;
use crate::scenario::{Failure, expect};

/// The time between two kills of services, in milliseconds: short enough that services die while they start, while they are
/// backing off and while the supervisor is away.
const BETWEEN_KILLS: std::ops::Range<u64> = 100..900;

/// The time between two kills of the supervisor, in milliseconds. Five ends within a minute are fatal; four of these are
/// more than a minute.
const BETWEEN_CRASHES: std::ops::Range<u64> = 16_000..24_000;

/// The time between two kills of the gateway, in milliseconds: short enough that some kills hit the successor of a dead
/// supervisor, and long enough that few are within a minute of each other, after which the gateway waits for seconds.
const BETWEEN_GATEWAYS: std::ops::Range<u64> = 20_000..40_000;

/// One in this many parts of the time, the last one, runs on a single supervisor: only then does a slow leak show.
const UNDISTURBED_PART: u32 = 3;

/// The interval between two progress messages.
const PROGRESS: Duration = Duration::from_mins(1);

/// How long the enclave may take to settle: the longest restart delay is 200 ms, the rest is the machine's.
const REST_LIMIT: Duration = Duration::from_secs(30);

/// The interval between two checks for that.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Sends orders to the killer.
#[derive(Debug)]
pub(super) struct Chaos<'a> {
    web: &'a Running,
    port: u16,
    order: u64,
    crashes: u64,
    random: u64,
    recoveries: Vec<Duration>,
}

impl<'a> Chaos<'a> {
    /// The killer listens behind `port`.
    pub(super) fn new(web: &'a Running, port: u16) -> Self {
        // The seed need not be reproducible: what happens between two kills is not reproducible either.
        let random = RandomState::new().hash_one(port) | 1;
        Self { web, port, order: 0, crashes: 0, random, recoveries: Vec::new() }
    }

    /// Kills everything once, so that what is created at a first restart exists.
    pub(super) fn kill_each_once(&mut self) -> Outcome {
        for name in VICTIMS {
            self.kill(name);
        }
        self.kill(GATEWAY);
        self.crash()
    }

    /// Kills at random until `time` has passed or the log shows a loss. The last supervisor stays alive.
    pub(super) fn kill_at_random(&mut self, time: Duration, log: &Log) -> Outcome {
        let (began, mut next_message) = (Instant::now(), PROGRESS);
        let mut next_crash = Instant::now() + self.pick(BETWEEN_CRASHES);
        let mut next_gateway = Instant::now() + self.pick(BETWEEN_GATEWAYS);
        while began.elapsed() < time && !log.is_wrong() {
            if began.elapsed() >= next_message {
                let minutes = next_message.as_secs() / 60;
                // A closed stderr loses nothing: all of it is in the verdict.
                drop(writeln!(std::io::stderr(), "soak: {minutes} min, {} orders to kill", self.order));
                next_message += PROGRESS;
            }
            if Instant::now() >= next_crash
                && began.elapsed() < time / UNDISTURBED_PART * (UNDISTURBED_PART - 1)
            {
                self.crash()?;
                next_crash = Instant::now() + self.pick(BETWEEN_CRASHES);
            }
            if Instant::now() >= next_gateway
                && began.elapsed() < time / UNDISTURBED_PART * (UNDISTURBED_PART - 1)
            {
                self.kill_gateway();
                next_gateway = Instant::now() + self.pick(BETWEEN_GATEWAYS);
            }
            let victim = self.victim();
            self.kill(victim);
            thread::park_timeout(self.pick(BETWEEN_KILLS));
        }
        Ok(())
    }

    /// Waits until everything runs and no zombie is left, and takes a census.
    pub(super) fn at_rest(&mut self) -> Result<Census, Failure> {
        let began = Instant::now();
        loop {
            self.web.wait_ready()?;
            let census = self.request("census");
            if let Some(census) = census.as_ref().filter(|census| census.zombies == 0) {
                return Ok(census.clone());
            }
            expect(
                began.elapsed() < REST_LIMIT,
                format_args!("the enclave does not settle; the killer's last answer: {census:?}"),
            )?;
            thread::park_timeout(POLL_INTERVAL);
        }
    }

    /// Kills the supervisor, and a service while it is unsupervised, and waits for the next supervisor.
    fn crash(&mut self) -> Outcome {
        self.order = self.order.saturating_add(1);
        let victim = self.victim();
        let order = format!("kill/{}/{SUPERVISOR},{victim}", self.order);
        self.crashes = self.crashes.saturating_add(1);
        let began = Instant::now();
        loop {
            // The order's number makes it safe to repeat when it may have been lost.
            drop(self.request(&order));
            let status = self.web.inspect()?;
            let restarts = status.pointer("/status/supervisor_restarts").and_then(Value::as_u64);
            if restarts == Some(self.crashes) {
                return Ok(());
            }
            expect(
                began.elapsed() < REST_LIMIT,
                format_args!("no supervisor replaced supervisor {}: {status}", self.crashes),
            )?;
            thread::park_timeout(POLL_INTERVAL);
        }
    }

    /// Orders the kill of one service. It may have no effect: the service may be dead already, or the killer unreachable.
    fn kill(&mut self, name: &str) {
        self.order = self.order.saturating_add(1);
        drop(self.request(&format!("kill/{}/{name}", self.order)));
    }

    /// Kills the gateway, and measures how long it takes until the next one forwards a request. The answer to the order is lost with
    /// the gateway, unless that was dead already.
    fn kill_gateway(&mut self) {
        self.kill(GATEWAY);
        let killed = Instant::now();
        while self.request("census").is_none() && killed.elapsed() < REST_LIMIT {}
        self.recoveries.push(killed.elapsed());
    }

    /// How long it took after each kill of the gateway until the next one forwarded a request, shortest first.
    pub(super) fn recoveries(mut self) -> Vec<Duration> {
        self.recoveries.sort_unstable();
        self.recoveries
    }

    fn request(&self, path: &str) -> Option<Census> {
        let answer = self.web.get(self.port, &format!("/{path}")).ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    fn victim(&mut self) -> &'static str {
        let place = self.below(VICTIMS.len().try_into().unwrap_or(1));
        usize::try_from(place).ok().and_then(|place| VICTIMS.get(place)).copied().unwrap_or(VICTIMS[0])
    }

    fn pick(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start.saturating_add(self.below(range.end.saturating_sub(range.start))))
    }

    /// A number below `limit`: xorshift64 (Marsaglia, "Xorshift RNGs", 2003), which is random enough for this.
    fn below(&mut self, limit: u64) -> u64 {
        for shift in [13, -7_i32, 17] {
            let amount = shift.unsigned_abs();
            self.random ^= if shift > 0 { self.random << amount } else { self.random >> amount };
        }
        self.random % limit.max(1)
    }
}
