//! The lifecycle of one enclave as the host sees it: a state machine from events to actions.
//!
//! Invariant: it is pure. The time is passed in with each event, and every path ends in [`Phase::Over`]: each phase has a
//! deadline, or ends when the machine exits.
//!
//! ```text
//! Booting ─ status ─▶ Up ─ stop request ─▶ Stopping ─┐
//!    │                 │                             ├─ final state ─▶ Draining ─ logs read ─▶ PoweringOff
//!    │                 └─────────────────────────────┘                     │                        │
//!    └─ deadline, kill request (any phase) ──▶ Killing ◀──── deadline ─────┴────────────────────────┤
//!                                                 └────────── the machine exits (any phase) ──▶ Over
//! ```

mod readiness;

use std::time::Duration;

use cloister_wire::control::{State, Status};
use tokio::time::Instant;

use crate::backends::MachineExit;
use crate::values::show_duration;

pub(crate) use readiness::Check;
use readiness::Health;

use super::verdict::{Verdict, unexplained};

/// How long it may take to read the logs to their end: the enclave waits two seconds for its final state to be acknowledged.
const DRAIN_LIMIT: Duration = Duration::from_millis(1500);

/// Added to the enclave's own limit for a stop: for the request, the reply and the power-off.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// The time limits of one lifecycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From launch to the first status. A job may run for a day before all is ready; a machine that hangs is detected sooner.
    pub(crate) answer: Duration,
    /// From launch to ready.
    pub(crate) ready: Duration,
    /// The whole run, if the operator set one.
    pub(crate) run: Option<Duration>,
    /// For a stop, from the manifest.
    pub(crate) stop: Duration,
    /// From the acknowledged final state to the exit of the machine.
    pub(crate) power_off: Duration,
    /// From a kill to the exit of the machine.
    pub(crate) kill: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The enclave sent its status.
    Status(Box<Status>),
    /// The console showed the enclave's final state.
    FinalState(State),
    /// The console showed a kernel panic.
    Panic(String),
    /// The logs have been read to their end, or cannot be.
    Drained,
    /// Communication with the enclave is impossible.
    Broken(String),
    /// Whether the enclave replied to a ping.
    Pulse(bool),
    /// The machine has exited and its console is at end of file.
    Ended(MachineExit),
    /// A stop was requested.
    Stop {
        /// Who requested it, human-readable.
        why: String,
        /// How long it may take; default: the manifest's limit.
        grace: Option<Duration>,
    },
    /// A kill was requested.
    Kill {
        /// Who requested it, human-readable.
        why: String,
    },
    /// Ctrl-C: the first one requests a stop, the second one a kill.
    Interrupt,
    /// The evidence of the enclave is what was expected.
    Verified,
    /// It is not.
    NotVerified {
        /// Which check failed, human-readable.
        why: String,
    },
    /// A deadline passed.
    Tick,
}

/// An action for the sleeve to perform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Request the enclave to stop.
    RequestStop,
    /// Read the logs to their end.
    Drain,
    /// Acknowledge the enclave's final state.
    Seen(u64),
    /// Kill the machine.
    Kill,
    /// Verify its evidence, before it is reported as ready.
    Verify,
    /// Report to the launching command that it is ready.
    Ready,
    /// Report to the launching command that it has become degraded, or ready again.
    Changed,
    /// It has stopped responding.
    Unresponsive,
    /// It responds again.
    Responsive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Booting,
    Up,
    Stopping { until: Instant },
    Draining { seq: u64, until: Instant },
    PoweringOff { until: Instant },
    Killing { until: Instant },
    Over,
}

/// The state of one lifecycle.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    limits: Limits,
    phase: Phase,
    answer_by: Option<Instant>,
    ready_by: Option<Instant>,
    run_until: Option<Instant>,
    check: Check,
    /// The state that was last reported, if it is ready or degraded.
    serves: Option<Health>,
    /// Whether all services were serving, as last reported. Initially true.
    healthy: bool,
    /// Whether a stop was requested here.
    stopped: bool,
    unresponsive: bool,
    final_state: Option<State>,
    panic: Option<String>,
    forced: Option<Verdict>,
    verdict: Option<Verdict>,
}

impl Lifecycle {
    /// A lifecycle that begins now.
    pub(crate) fn new(limits: Limits, check: Check, now: Instant) -> Self {
        Self {
            limits,
            phase: Phase::Booting,
            answer_by: Some(now + limits.answer),
            ready_by: Some(now + limits.ready),
            run_until: limits.run.map(|run| now + run),
            check,
            serves: None,
            healthy: true,
            stopped: false,
            unresponsive: false,
            final_state: None,
            panic: None,
            forced: None,
            verdict: None,
        }
    }

    /// Processes an event and returns the actions to perform.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Status(status) => self.on_status(&status, now),
            Event::FinalState(state) => {
                self.final_state.get_or_insert(state);
                Vec::new()
            }
            Event::Panic(line) => {
                self.panic.get_or_insert(line);
                Vec::new()
            }
            Event::Drained => self.on_drained(now),
            Event::Broken(why) => self.kill(Verdict::failed(why), now),
            Event::Pulse(replied) => self.on_pulse(replied),
            Event::Ended(ending) => self.on_ended(&ending),
            Event::Stop { why, grace } => self.stop(why, grace, now),
            Event::Kill { why } => self.kill(Verdict::killed(why), now),
            Event::Verified => self.on_verified(),
            // What is stopping or over needs no kill: without a verification it ends as not verified anyway.
            Event::NotVerified { why } if self.phase == Phase::Up => {
                self.kill(Verdict::not_verified(why), now)
            }
            Event::NotVerified { .. } => Vec::new(),
            Event::Interrupt => self.on_interrupt(now),
            Event::Tick => self.on_tick(now),
        }
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Booting | Phase::Up | Phase::Over => None,
            Phase::Stopping { until }
            | Phase::Draining { until, .. }
            | Phase::PoweringOff { until }
            | Phase::Killing { until } => Some(until),
        };
        let waiting = matches!(self.phase, Phase::Booting | Phase::Up);
        let limits =
            [self.answer_by, self.ready_by, self.run_until].into_iter().flatten().filter(|_| waiting);
        phase.into_iter().chain(limits).min()
    }

    /// How it ended, once it has.
    pub(crate) const fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    fn on_status(&mut self, status: &Status, now: Instant) -> Vec<Action> {
        if status.state.is_final() {
            // The first final state counts: later states from a machine that keeps running are ignored.
            self.final_state.get_or_insert_with(|| status.state.clone());
            return match self.phase {
                Phase::Booting | Phase::Up | Phase::Stopping { .. } => {
                    self.phase = Phase::Draining { seq: status.seq, until: now + DRAIN_LIMIT };
                    vec![Action::Drain]
                }
                _ => Vec::new(),
            };
        }
        if self.phase == Phase::Booting {
            self.phase = Phase::Up;
            self.answer_by = None;
        }
        if matches!(self.phase, Phase::Stopping { .. }) && !matches!(status.state, State::Stopping { .. }) {
            // It has not received the request: the connection may have broken before it arrived.
            return vec![Action::RequestStop];
        }
        self.serves = Health::of(&status.state);
        let Some(health) = self.serves else { return Vec::new() };
        let healthy = health == Health::Ready;
        let changed = std::mem::replace(&mut self.healthy, healthy) != healthy;
        match self.check {
            Check::Due => {
                self.check = Check::Running;
                // The verification has a limit of its own.
                self.ready_by = None;
                vec![Action::Verify]
            }
            Check::Running => Vec::new(),
            Check::Done | Check::Announced => self.serving(changed),
        }
    }

    /// It is verified: what its services do is reported from now on.
    fn on_verified(&mut self) -> Vec<Action> {
        if self.check != Check::Running {
            return Vec::new();
        }
        self.check = Check::Done;
        if self.phase == Phase::Up && self.serves.is_some() {
            self.serving(!self.healthy)
        } else {
            Vec::new()
        }
    }

    fn serving(&mut self, changed: bool) -> Vec<Action> {
        self.ready_by = None;
        let first = std::mem::replace(&mut self.check, Check::Announced) == Check::Done;
        first.then_some(Action::Ready).into_iter().chain(changed.then_some(Action::Changed)).collect()
    }

    /// Before the first status a deadline applies, and after the final state no reply is expected.
    fn on_pulse(&mut self, replied: bool) -> Vec<Action> {
        let unresponsive = !replied && matches!(self.phase, Phase::Up | Phase::Stopping { .. });
        if std::mem::replace(&mut self.unresponsive, unresponsive) == unresponsive {
            return Vec::new();
        }
        vec![if unresponsive { Action::Unresponsive } else { Action::Responsive }]
    }

    fn on_drained(&mut self, now: Instant) -> Vec<Action> {
        let Phase::Draining { seq, .. } = self.phase else {
            return Vec::new();
        };
        self.phase = Phase::PoweringOff { until: now + self.limits.power_off };
        vec![Action::Seen(seq)]
    }

    fn on_ended(&mut self, ending: &MachineExit) -> Vec<Action> {
        self.phase = Phase::Over;
        let final_state = self.final_state.take();
        let panic = self.panic.take();
        let verdict = match (self.forced.take(), final_state, panic) {
            (Some(ours), _, _) if ours.is_ours() => ours,
            // Whose code it is was not known. After a stop that was requested here, it is reported all the same.
            (None, Some(State::Exited { .. } | State::Signaled { .. }), _)
                if matches!(self.check, Check::Due | Check::Running) && !self.stopped =>
            {
                Verdict::not_verified("it ended before it was verified")
            }
            // A reported final state counts, regardless of what was done to the machine afterwards.
            (_, Some(state), _) => Verdict::reported(state),
            (Some(forced), None, _) => forced,
            (None, None, Some(panic)) => Verdict::failed(format!("guest kernel panicked: {panic}")),
            (None, None, None) => Verdict::failed(unexplained(ending)),
        };
        self.verdict = Some(verdict);
        Vec::new()
    }

    fn stop(&mut self, why: String, grace: Option<Duration>, now: Instant) -> Vec<Action> {
        let grace = grace.unwrap_or(self.limits.stop + STOP_MARGIN);
        self.stopped = true;
        match self.phase {
            // No supervisor is listening yet that could stop cleanly, and no service is running.
            Phase::Booting => self.kill(Verdict::killed(why), now),
            Phase::Up => {
                self.phase = Phase::Stopping { until: now + grace };
                vec![Action::RequestStop]
            }
            Phase::Stopping { until } => {
                self.phase = Phase::Stopping { until: until.min(now + grace) };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn kill(&mut self, verdict: Verdict, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Killing { .. } | Phase::Over => Vec::new(),
            _ => {
                self.forced.get_or_insert(verdict);
                self.phase = Phase::Killing { until: now + self.limits.kill };
                vec![Action::Kill]
            }
        }
    }

    fn on_interrupt(&mut self, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Up => self.stop("interrupted".to_owned(), None, now),
            _ => self.kill(Verdict::interrupted(), now),
        }
    }

    fn on_tick(&mut self, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Booting | Phase::Up => self.on_limits(now),
            Phase::Stopping { until } if now >= until => {
                self.kill(Verdict::killed("it did not stop in time"), now)
            }
            Phase::Draining { until, .. } if now >= until => self.on_drained(now),
            Phase::PoweringOff { until } if now >= until => {
                self.kill(Verdict::killed("it did not power off in time"), now)
            }
            Phase::Killing { until } if now >= until => self.on_ended(&MachineExit::Failed {
                how: "machine did not exit after SIGKILL".to_owned(),
                output: None,
            }),
            _ => Vec::new(),
        }
    }

    fn on_limits(&mut self, now: Instant) -> Vec<Action> {
        let passed = |limit: Option<Instant>| limit.is_some_and(|at| now >= at);
        if passed(self.run_until) {
            let why = format!("it ran for {}", show_duration(self.limits.run.unwrap_or_default()));
            self.forced = Some(Verdict::timed_out(why.clone()));
            self.run_until = None;
            return self.stop(why, None, now);
        }
        if passed(self.answer_by) {
            let why = format!("it did not respond within {}", show_duration(self.limits.answer));
            return self.kill(Verdict::timed_out(why), now);
        }
        if passed(self.ready_by) {
            let why = format!("it was not ready within {}", show_duration(self.limits.ready));
            return self.kill(Verdict::timed_out(why), now);
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
