//! The lifecycle of one servant: started, ready, exited, restarted. Pure.
//!
//! Invariant: a servant is always restarted. The first exit within [`WINDOW_MS`] is followed by an immediate start,
//! since connections wait for it; each further one by a pause that doubles.
//!
//! ```text
//!  idle ─▶ spawning ─▶ starting ─▶ ready
//!             ▲            └────┬────┘
//!             │                 ▼ exited
//!         backing-off ◀────── ending
//! ```

use std::collections::VecDeque;

use cloister_wire::control::{Exit, MAX_ERROR_TEXT, Phase, ServiceStatus, bounded};
use cloister_wire::hold::Held;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::launcher::describe;

/// The time over which exits are counted, in milliseconds: the same as init uses for the supervisor.
const WINDOW_MS: u64 = 60_000;

/// The pause before the second restart in a window, and the maximum pause, in milliseconds. A servant that exits after
/// each start costs the machine a start every five seconds.
const PAUSES_MS: (u64, u64) = (100, 5_000);

/// Number of exits in a window that degrades the enclave, even while the servant is ready again.
const MANY: usize = 3;

/// How long a servant may take from the request until it executes its program, and from then until it is ready, in
/// milliseconds. It takes some under translation and load; one that takes this long hangs, and is killed.
const START_MS: u64 = 10_000;

/// An action for a servant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Have init start it.
    Spawn,
    /// Have init kill it.
    Kill,
    /// Have init release the holding.
    Release,
    /// Write a line about it to the log.
    Log(String),
}

/// Its stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// It was not requested yet.
    #[default]
    Idle,
    /// Its start was requested from init, which has until this moment to report it.
    Spawning(Moment),
    /// It runs, and has until this moment to report that it serves.
    Starting(Moment),
    /// It serves.
    Ready,
    /// Its process exited, or is being killed; its cgroup may not be empty.
    Ending,
    /// It is restarted at this moment.
    BackingOff(Moment),
}

/// A servant's state, which survives crashes of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lifecycle {
    stage: Stage,
    since: Moment,
    pid: Option<u32>,
    restarts: u32,
    last_exit: Option<Exit>,
    /// When it exited, within the window.
    exits: VecDeque<Moment>,
}

impl Lifecycle {
    /// It is to run from now on; `held` is its holding.
    pub(super) fn adopt(&mut self, held: Option<&Held>, now: Moment) -> Vec<Action> {
        let Some(held) = held else {
            return match self.stage {
                // The exit has been handled up to this point.
                Stage::BackingOff(_) => Vec::new(),
                Stage::Idle | Stage::Spawning(_) => self.spawn(now),
                Stage::Starting(_) | Stage::Ready | Stage::Ending => self.restart(now),
            };
        };
        if held.fds == 0 && held.ended.is_none() {
            self.enter(Stage::Spawning(now.plus_millis(START_MS)), now);
            return Vec::new();
        }
        let mut acts = self.spawned(held.pid, now);
        if let Some(ended) = &held.ended {
            acts.extend(self.exited(ended.exit.clone(), now));
            if !held.populated {
                acts.extend(self.emptied(now));
            }
        }
        acts
    }

    /// Init has started it.
    pub(super) fn spawned(&mut self, pid: u32, now: Moment) -> Vec<Action> {
        if self.pid != Some(pid) {
            self.pid = Some(pid);
            self.enter(Stage::Starting(now.plus_millis(START_MS)), now);
        }
        Vec::new()
    }

    /// Init could not start it.
    pub(super) fn spawn_failed(&mut self, error: &str, now: Moment) -> Vec<Action> {
        let error = bounded(error, MAX_ERROR_TEXT);
        let line = format!("not started: {error}");
        self.last_exit = Some(Exit::NotStarted { error });
        // A start that fails immediately would fail again immediately: this counts as two exits.
        self.exits.push_back(now);
        let mut acts = vec![Action::Log(line)];
        acts.extend(self.restart(now));
        acts
    }

    /// It reports that it serves.
    pub(super) fn ready(&mut self, now: Moment) {
        if matches!(self.stage, Stage::Starting(_)) {
            self.enter(Stage::Ready, now);
        }
    }

    /// It violated the protocol.
    pub(super) fn misbehaved(&mut self, why: &str, now: Moment) -> Vec<Action> {
        if self.pid.is_none() || self.stage == Stage::Ending {
            return Vec::new();
        }
        self.enter(Stage::Ending, now);
        vec![Action::Log(format!("killed: {}", bounded(why, MAX_ERROR_TEXT))), Action::Kill]
    }

    /// Its process exited.
    pub(super) fn exited(&mut self, exit: Exit, now: Moment) -> Vec<Action> {
        self.pid = None;
        self.enter(Stage::Ending, now);
        let line = format!("ended: {}", describe(&exit));
        self.last_exit = Some(exit);
        vec![Action::Log(line)]
    }

    /// None of its processes is left.
    pub(super) fn emptied(&mut self, now: Moment) -> Vec<Action> {
        if self.pid.is_some() {
            return Vec::new();
        }
        let mut acts = vec![Action::Release];
        acts.extend(self.restart(now));
        acts
    }

    /// A deadline has expired.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Action> {
        match self.stage {
            Stage::BackingOff(until) if now >= until => self.spawn(now),
            Stage::Spawning(until) | Stage::Starting(until) if now >= until => {
                // A start that hangs before the program is executed is reported as failed once its process has exited.
                self.enter(Stage::Ending, now);
                vec![Action::Log(format!("killed: not ready within {START_MS} ms")), Action::Kill]
            }
            _ => {
                self.exits.retain(|exit| is_recent(*exit, now));
                Vec::new()
            }
        }
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::Spawning(until) | Stage::Starting(until) | Stage::BackingOff(until) => Some(until),
            // By then there are too few recent exits to degrade the enclave.
            Stage::Ready if self.exits.len() >= MANY => {
                self.exits.iter().rev().nth(MANY.saturating_sub(1)).map(|exit| exit.plus_millis(WINDOW_MS))
            }
            Stage::Idle | Stage::Ready | Stage::Ending => None,
        }
    }

    /// Its process, if it has one.
    pub(super) const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Its entry in the status.
    pub(super) fn status(&self, name: &str) -> ServiceStatus {
        let phase = match self.stage {
            Stage::Idle => Phase::Waiting,
            Stage::Spawning(_) | Stage::Starting(_) => Phase::Starting,
            Stage::Ready => Phase::Ready,
            Stage::Ending => Phase::Stopping,
            Stage::BackingOff(_) => Phase::BackingOff,
        };
        ServiceStatus {
            name: name.to_owned(),
            phase,
            pid: self.pid,
            since_ms: self.since.millis(),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            text: None,
            waits_for: None,
        }
    }

    /// Its problem, as the end of a sentence that starts with its name. A first start is not a problem.
    pub(super) fn problem(&self) -> Option<String> {
        let last =
            self.last_exit.as_ref().map(|exit| format!(" after {}", describe(exit))).unwrap_or_default();
        match self.stage {
            Stage::Ready if self.exits.len() < MANY => None,
            Stage::Ready => Some(format!("ended {} times within {} s", self.exits.len(), WINDOW_MS / 1_000)),
            Stage::Idle | Stage::Spawning(_) | Stage::Starting(_) if self.exits.is_empty() => None,
            Stage::BackingOff(_) => Some(format!("is waiting to restart{last}")),
            _ => Some(format!("is restarting{last}")),
        }
    }

    fn restart(&mut self, now: Moment) -> Vec<Action> {
        self.pid = None;
        self.exits.retain(|exit| is_recent(*exit, now));
        self.exits.push_back(now);
        let doublings = match self.exits.len() {
            0 | 1 => return self.respawn(now),
            exits => u32::try_from(exits.saturating_sub(2)).unwrap_or(u32::MAX),
        };
        let (first, longest) = PAUSES_MS;
        let pause = first.saturating_mul(2_u64.saturating_pow(doublings)).min(longest);
        self.enter(Stage::BackingOff(now.plus_millis(pause)), now);
        vec![Action::Log(format!("restarting in {pause} ms"))]
    }

    fn spawn(&mut self, now: Moment) -> Vec<Action> {
        if matches!(self.stage, Stage::BackingOff(_)) {
            return self.respawn(now);
        }
        self.enter(Stage::Spawning(now.plus_millis(START_MS)), now);
        vec![Action::Spawn]
    }

    fn respawn(&mut self, now: Moment) -> Vec<Action> {
        self.restarts = self.restarts.saturating_add(1);
        self.enter(Stage::Spawning(now.plus_millis(START_MS)), now);
        vec![Action::Spawn]
    }

    const fn enter(&mut self, stage: Stage, now: Moment) {
        self.stage = stage;
        self.since = now;
    }
}

fn is_recent(exit: Moment, now: Moment) -> bool {
    now < exit.plus_millis(WINDOW_MS)
}

#[cfg(test)]
mod tests;
