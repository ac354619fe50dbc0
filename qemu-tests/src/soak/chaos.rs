//! Who is killed when.
//!
//! Its law: each order has a number and is carried out once; that an answer is missing proves nothing, so what was done is
//! read from the warden's counts.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::Log;
use super::warden::Census;
use super::{GATEWAY, SUPERVISOR, VICTIMS};
use crate::Outcome;
use crate::lab::Running;
use crate::story::{Failure, expect};

/// The time between two kills of services, in milliseconds: short enough that services die while they start, while they are
/// backing off and while the supervisor is away.
const BETWEEN_KILLS: std::ops::Range<u64> = 100..900;

/// The time between two kills of the supervisor, in milliseconds. Five ends within a minute are fatal; four of these are
/// more than a minute.
const BETWEEN_CRASHES: std::ops::Range<u64> = 16_000..24_000;

/// The time between two kills of the gateway, in milliseconds: often enough that some meet a dead supervisor's successor, and
/// seldom enough that few of its ends are within a minute, behind which it waits for seconds.
const BETWEEN_GATEWAYS: std::ops::Range<u64> = 20_000..40_000;

/// The last part of the time, one in this many, is lived by one supervisor: what it would lose by and by shows only then.
const LIFE_PART: u32 = 3;

/// The time between two signs of life for whoever waits.
const WORD: Duration = Duration::from_mins(1);

/// How long the enclave may take to come to rest: the longest pause before a restart is 200 ms, the rest is the machine's.
const REST: Duration = Duration::from_secs(30);

/// The pause between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Gives orders to the warden.
#[derive(Debug)]
pub(super) struct Chaos<'a> {
    web: &'a Running,
    port: u16,
    order: u64,
    crashes: u64,
    random: u64,
}

impl<'a> Chaos<'a> {
    /// The warden listens behind `port`.
    pub(super) fn new(web: &'a Running, port: u16) -> Self {
        // The seed decides nothing that must be repeated: what happens between two kills is not repeatable either.
        Self { web, port, order: 0, crashes: 0, random: RandomState::new().hash_one(port) | 1 }
    }

    /// Kills everything once, so that what is made at a first restart is there.
    pub(super) fn each_once(&mut self) -> Outcome {
        for name in VICTIMS {
            self.kill(name);
        }
        self.kill(GATEWAY);
        self.crash()
    }

    /// Kills at random until `time` has passed or the log shows that something was lost. The last supervisor lives on.
    pub(super) fn rage(&mut self, time: Duration, log: &Log) -> Outcome {
        let (began, mut next_word) = (Instant::now(), WORD);
        let mut next_crash = Instant::now() + self.pick(BETWEEN_CRASHES);
        let mut next_gateway = Instant::now() + self.pick(BETWEEN_GATEWAYS);
        while began.elapsed() < time && !log.is_wrong() {
            if began.elapsed() >= next_word {
                let minutes = next_word.as_secs() / 60;
                // Whoever does not look misses nothing: all of it is in the verdict.
                drop(writeln!(std::io::stderr(), "soak: {minutes} min, {} orders to kill", self.order));
                next_word += WORD;
            }
            if Instant::now() >= next_crash && began.elapsed() < time / LIFE_PART * (LIFE_PART - 1) {
                self.crash()?;
                next_crash = Instant::now() + self.pick(BETWEEN_CRASHES);
            }
            if Instant::now() >= next_gateway && began.elapsed() < time / LIFE_PART * (LIFE_PART - 1) {
                self.kill(GATEWAY);
                next_gateway = Instant::now() + self.pick(BETWEEN_GATEWAYS);
            }
            let victim = self.victim();
            self.kill(victim);
            thread::park_timeout(self.pick(BETWEEN_KILLS));
        }
        Ok(())
    }

    /// Waits until everything runs and no zombie is left, and counts.
    pub(super) fn at_rest(&mut self) -> Result<Census, Failure> {
        let began = Instant::now();
        loop {
            self.web.wait_ready()?;
            let census = self.ask("census");
            if let Some(census) = census.as_ref().filter(|census| census.zombies == 0) {
                return Ok(census.clone());
            }
            expect(
                began.elapsed() < REST,
                format_args!("it does not come to rest; the warden said last: {census:?}"),
            )?;
            thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Kills the supervisor, and a service while nobody watches, and waits for the next supervisor.
    fn crash(&mut self) -> Outcome {
        self.order = self.order.saturating_add(1);
        let victim = self.victim();
        let order = format!("kill/{}/{SUPERVISOR},{victim}", self.order);
        self.crashes = self.crashes.saturating_add(1);
        let began = Instant::now();
        loop {
            // Its number makes it safe to give again where it is not known whether it arrived.
            drop(self.ask(&order));
            let status = self.web.inspect()?;
            let restarts = status.pointer("/status/supervisor_restarts").and_then(Value::as_u64);
            if restarts == Some(self.crashes) {
                return Ok(());
            }
            expect(
                began.elapsed() < REST,
                format_args!("supervisor {} is not followed by another: {status}", self.crashes),
            )?;
            thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// An order to kill one service. It may come to nothing: who is dead already, or the way to the warden, is not there.
    fn kill(&mut self, name: &str) {
        self.order = self.order.saturating_add(1);
        drop(self.ask(&format!("kill/{}/{name}", self.order)));
    }

    fn ask(&self, path: &str) -> Option<Census> {
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
