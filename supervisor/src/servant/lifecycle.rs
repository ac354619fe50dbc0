//! The life of one servant: started, ready, dead, started again. Pure.
//!
//! Its law: a servant is never given up. The first end in a [`WINDOW_MS`] is followed by a start at once, since connections
//! wait for it; each further one by a pause that doubles.
//!
//! ```text
//!  idle ─▶ spawning ─▶ starting ─▶ ready
//!             ▲            └────┬────┘
//!             │                 ▼ it ended
//!         backing-off ◀────── ending
//! ```

use std::collections::VecDeque;

use cloister_wire::control::{Exit, MAX_ERROR_TEXT, Phase, ServiceStatus, bounded};
use cloister_wire::hold::Held;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::launcher::words;

/// The time over which ends are counted, in milliseconds: as init counts those of the supervisor.
const WINDOW_MS: u64 = 60_000;

/// The pause before the second start again in a window, and the longest, in milliseconds. A servant that dies at each start costs
/// the machine a start every five seconds.
const PAUSES_MS: (u64, u64) = (100, 5_000);

/// So many ends in a window are said in the enclave's state, also while the servant is ready again.
const MANY: usize = 3;

/// How long a servant may take from the request to its program, and from there to being ready, in milliseconds. It takes some
/// under translation and load; one that takes this long hangs, and is killed.
const START_MS: u64 = 10_000;

/// What is to be done about a servant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Have init start it.
    Spawn,
    /// Have init kill it.
    Kill,
    /// Have init drop what it holds of it.
    Forget,
    /// Write a line about it into the log.
    Say(String),
}

/// Where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// It was not wanted yet.
    #[default]
    Idle,
    /// Init was asked to start it; that may take until then.
    Spawning(Moment),
    /// It runs, and is to say that it serves until then.
    Starting(Moment),
    /// It serves.
    Ready,
    /// Its process ended, or is being killed; its cgroup is not known to be empty.
    Ending,
    /// It is started again then.
    BackingOff(Moment),
}

/// What is known of a servant, across crashes of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    stage: Stage,
    since: Moment,
    pid: Option<u32>,
    restarts: u32,
    last_exit: Option<Exit>,
    /// When it ended, within the window.
    ends: VecDeque<Moment>,
}

impl Life {
    /// It is to run from now on; `held` is what init has of it.
    pub(super) fn adopt(&mut self, held: Option<&Held>, now: Moment) -> Vec<Act> {
        let Some(held) = held else {
            return match self.stage {
                // The end was dealt with up to here.
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
    pub(super) fn spawned(&mut self, pid: u32, now: Moment) -> Vec<Act> {
        if self.pid != Some(pid) {
            self.pid = Some(pid);
            self.enter(Stage::Starting(now.plus_millis(START_MS)), now);
        }
        Vec::new()
    }

    /// Init could not start it.
    pub(super) fn spawn_failed(&mut self, error: &str, now: Moment) -> Vec<Act> {
        let error = bounded(error, MAX_ERROR_TEXT);
        let line = format!("not started: {error}");
        self.last_exit = Some(Exit::NotStarted { error });
        // What failed at once fails again at once: this counts as two ends.
        self.ends.push_back(now);
        let mut acts = vec![Act::Say(line)];
        acts.extend(self.restart(now));
        acts
    }

    /// It says that it serves.
    pub(super) fn ready(&mut self, now: Moment) {
        if matches!(self.stage, Stage::Starting(_)) {
            self.enter(Stage::Ready, now);
        }
    }

    /// It does what it must not.
    pub(super) fn misbehaved(&mut self, why: &str, now: Moment) -> Vec<Act> {
        if self.pid.is_none() || self.stage == Stage::Ending {
            return Vec::new();
        }
        self.enter(Stage::Ending, now);
        vec![Act::Say(format!("killed: {}", bounded(why, MAX_ERROR_TEXT))), Act::Kill]
    }

    /// Its process ended.
    pub(super) fn exited(&mut self, exit: Exit, now: Moment) -> Vec<Act> {
        self.pid = None;
        self.enter(Stage::Ending, now);
        let line = format!("ended: {}", words(&exit));
        self.last_exit = Some(exit);
        vec![Act::Say(line)]
    }

    /// Nothing of it is left.
    pub(super) fn emptied(&mut self, now: Moment) -> Vec<Act> {
        if self.pid.is_some() {
            return Vec::new();
        }
        let mut acts = vec![Act::Forget];
        acts.extend(self.restart(now));
        acts
    }

    /// A deadline has come.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Act> {
        match self.stage {
            Stage::BackingOff(until) if now >= until => self.spawn(now),
            Stage::Spawning(until) | Stage::Starting(until) if now >= until => {
                // A start that hangs before its program is reported as failed once its process is gone.
                self.enter(Stage::Ending, now);
                vec![Act::Say(format!("killed: not ready within {START_MS} ms")), Act::Kill]
            }
            _ => {
                self.ends.retain(|end| is_recent(*end, now));
                Vec::new()
            }
        }
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::Spawning(until) | Stage::Starting(until) | Stage::BackingOff(until) => Some(until),
            // Then its ends are too few again to be in the enclave's state.
            Stage::Ready if self.ends.len() >= MANY => {
                self.ends.iter().rev().nth(MANY.saturating_sub(1)).map(|end| end.plus_millis(WINDOW_MS))
            }
            Stage::Idle | Stage::Ready | Stage::Ending => None,
        }
    }

    /// Its process, while it has one.
    pub(super) const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// As the host reads it.
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

    /// What is amiss, as the end of a sentence that starts with its name. A first start is not.
    pub(super) fn trouble(&self) -> Option<String> {
        let last = self.last_exit.as_ref().map(|exit| format!(" after {}", words(exit))).unwrap_or_default();
        match self.stage {
            Stage::Ready if self.ends.len() < MANY => None,
            Stage::Ready => Some(format!("ended {} times within {} s", self.ends.len(), WINDOW_MS / 1_000)),
            Stage::Idle | Stage::Spawning(_) | Stage::Starting(_) if self.ends.is_empty() => None,
            Stage::BackingOff(_) => Some(format!("waits to be started again{last}")),
            _ => Some(format!("is starting again{last}")),
        }
    }

    fn restart(&mut self, now: Moment) -> Vec<Act> {
        self.pid = None;
        self.ends.retain(|end| is_recent(*end, now));
        self.ends.push_back(now);
        let doublings = match self.ends.len() {
            0 | 1 => return self.spawn_again(now),
            ends => u32::try_from(ends.saturating_sub(2)).unwrap_or(u32::MAX),
        };
        let (first, longest) = PAUSES_MS;
        let pause = first.saturating_mul(2_u64.saturating_pow(doublings)).min(longest);
        self.enter(Stage::BackingOff(now.plus_millis(pause)), now);
        vec![Act::Say(format!("starting again in {pause} ms"))]
    }

    fn spawn(&mut self, now: Moment) -> Vec<Act> {
        if matches!(self.stage, Stage::BackingOff(_)) {
            return self.spawn_again(now);
        }
        self.enter(Stage::Spawning(now.plus_millis(START_MS)), now);
        vec![Act::Spawn]
    }

    fn spawn_again(&mut self, now: Moment) -> Vec<Act> {
        self.restarts = self.restarts.saturating_add(1);
        self.enter(Stage::Spawning(now.plus_millis(START_MS)), now);
        vec![Act::Spawn]
    }

    const fn enter(&mut self, stage: Stage, now: Moment) {
        self.stage = stage;
        self.since = now;
    }
}

fn is_recent(end: Moment, now: Moment) -> bool {
    now < end.plus_millis(WINDOW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::control::Cause;
    use cloister_wire::hold::Ended;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn killed() -> Exit {
        Exit::Signal { signal: 9, cause: Cause::Sent }
    }

    fn held(pid: u32, ended: bool) -> Held {
        let name = "@gateway".to_owned();
        let ended = ended.then(|| Ended { name: name.clone(), pid, exit: killed(), at_ns: 0 });
        let populated = ended.is_none();
        Held { name, pid, at_ns: 0, ended, cgroup: 7, populated, fds: 2 }
    }

    fn running(life: &mut Life, pid: u32, now: Moment) {
        assert_eq!(life.spawned(pid, now), []);
        life.ready(now);
        assert_eq!(life.status("x").phase, Phase::Ready);
    }

    fn spawns(acts: &[Act]) -> bool {
        acts.contains(&Act::Spawn)
    }

    fn dies(life: &mut Life, now: Moment) -> Vec<Act> {
        let mut acts = life.exited(killed(), now);
        acts.extend(life.emptied(now));
        acts
    }

    #[test]
    fn the_first_end_in_a_window_is_followed_by_a_start_at_once() {
        let mut life = Life::default();
        assert_eq!(life.adopt(None, at(0)), [Act::Spawn]);
        for (round, start) in [0, 100_000, 200_000].into_iter().enumerate() {
            running(&mut life, 7, at(start));
            assert_eq!(life.trouble(), None);
            let acts = dies(&mut life, at(start + 10));
            assert_eq!(acts, [Act::Say("ended: signal 9 SIGKILL".into()), Act::Forget, Act::Spawn]);
            assert_eq!(life.trouble().unwrap(), "is starting again after signal 9 SIGKILL");
            assert_eq!(life.status("x").restarts, u32::try_from(round + 1).unwrap());
        }
    }

    #[test]
    fn further_ends_are_followed_by_pauses_that_double_and_the_state_says_so() {
        let mut life = Life::default();
        life.adopt(None, at(0));
        running(&mut life, 7, at(0));
        dies(&mut life, at(1));
        let mut now = 2;
        for (pid, pause) in (8..).zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            running(&mut life, pid, at(now));
            assert!(!spawns(&dies(&mut life, at(now))));
            assert!(life.trouble().unwrap().starts_with("waits to be started again after signal 9"));
            assert!(!spawns(&life.tick(at(now + pause - 1))));
            now += pause;
            assert!(spawns(&life.tick(at(now))), "{pause}");
        }
        running(&mut life, 99, at(now));
        assert_eq!(life.trouble().unwrap(), "ended 9 times within 60 s");
        let over = life.deadline().unwrap();
        assert_eq!(life.tick(over), []);
        assert_eq!((life.trouble(), life.deadline()), (None, None));
    }

    #[test]
    fn what_cannot_be_started_is_tried_again_after_a_pause() {
        let mut life = Life::default();
        life.adopt(None, at(0));
        assert!(!spawns(&life.spawn_failed("fork: no memory", at(0))));
        assert_eq!(life.trouble().unwrap(), "waits to be started again after not started: fork: no memory");
        assert!(spawns(&life.tick(life.deadline().unwrap())));
    }

    #[test]
    fn one_that_is_not_ready_in_time_or_misbehaves_is_killed_once() {
        let mut life = Life::default();
        life.adopt(None, at(0));
        life.spawned(7, at(0));
        assert!(life.tick(at(START_MS)).contains(&Act::Kill));
        assert_eq!(life.deadline(), None);
        assert_eq!(life.misbehaved("nonsense", at(START_MS)), []);
        assert!(spawns(&dies(&mut life, at(START_MS))));
        running(&mut life, 8, at(START_MS));
        assert!(life.misbehaved("nonsense", at(START_MS)).contains(&Act::Kill));
    }

    #[test]
    fn a_successor_of_the_supervisor_takes_over_what_runs_and_starts_what_does_not() {
        let mut life = Life::default();
        life.adopt(None, at(0));
        running(&mut life, 7, at(0));
        let kept = life.clone();
        assert_eq!(life.adopt(Some(&held(7, false)), at(5)), []);
        assert_eq!((life.status("x").phase, life.status("x").restarts), (Phase::Ready, 0));
        let mut life = kept.clone();
        assert!(spawns(&life.adopt(Some(&held(7, true)), at(5))), "it ended meanwhile");
        assert_eq!(life.status("x").restarts, 1);
        let mut life = kept;
        assert!(spawns(&life.adopt(None, at(5))), "its end was dealt with");
        let mut lost = Life::default();
        assert_eq!(lost.adopt(Some(&held(7, false)), at(5)), []);
        assert_eq!(lost.status("x").phase, Phase::Starting);
    }
}
