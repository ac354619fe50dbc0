//! Starts, restarts and adoptions, without processes or a clock.

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

fn running(lifecycle: &mut Lifecycle, pid: u32, now: Moment) {
    assert_eq!(lifecycle.spawned(pid, now), []);
    lifecycle.ready(now);
    assert_eq!(lifecycle.status("x").phase, Phase::Ready);
}

fn spawns(acts: &[Action]) -> bool {
    acts.contains(&Action::Spawn)
}

fn dies(lifecycle: &mut Lifecycle, now: Moment) -> Vec<Action> {
    let mut acts = lifecycle.exited(killed(), now);
    acts.extend(lifecycle.emptied(now));
    acts
}

#[test]
fn the_first_exit_in_a_window_is_followed_by_an_immediate_start() {
    let mut lifecycle = Lifecycle::default();
    assert_eq!(lifecycle.adopt(None, at(0)), [Action::Spawn]);
    for (round, start) in [0, 100_000, 200_000].into_iter().enumerate() {
        running(&mut lifecycle, 7, at(start));
        assert_eq!(lifecycle.problem(), None);
        let acts = dies(&mut lifecycle, at(start + 10));
        assert_eq!(acts, [Action::Log("ended: signal 9 SIGKILL".into()), Action::Release, Action::Spawn]);
        assert_eq!(lifecycle.problem().unwrap(), "is restarting after signal 9 SIGKILL");
        assert_eq!(lifecycle.status("x").restarts, u32::try_from(round + 1).unwrap());
    }
}

#[test]
fn further_exits_are_followed_by_doubling_pauses_and_reported() {
    let mut lifecycle = Lifecycle::default();
    lifecycle.adopt(None, at(0));
    running(&mut lifecycle, 7, at(0));
    dies(&mut lifecycle, at(1));
    let mut now = 2;
    for (pid, pause) in (8..).zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
        running(&mut lifecycle, pid, at(now));
        assert!(!spawns(&dies(&mut lifecycle, at(now))));
        assert!(lifecycle.problem().unwrap().starts_with("is waiting to restart after signal 9"));
        assert!(!spawns(&lifecycle.tick(at(now + pause - 1))));
        now += pause;
        assert!(spawns(&lifecycle.tick(at(now))), "{pause}");
    }
    running(&mut lifecycle, 99, at(now));
    assert_eq!(lifecycle.problem().unwrap(), "ended 9 times within 60 s");
    let deadline = lifecycle.deadline().unwrap();
    assert_eq!(lifecycle.tick(deadline), []);
    assert_eq!((lifecycle.problem(), lifecycle.deadline()), (None, None));
}

#[test]
fn a_failed_start_is_retried_after_a_pause() {
    let mut lifecycle = Lifecycle::default();
    lifecycle.adopt(None, at(0));
    assert!(!spawns(&lifecycle.spawn_failed("fork: no memory", at(0))));
    assert_eq!(lifecycle.problem().unwrap(), "is waiting to restart after not started: fork: no memory");
    assert!(spawns(&lifecycle.tick(lifecycle.deadline().unwrap())));
}

#[test]
fn a_servant_that_is_not_ready_in_time_or_misbehaves_is_killed_once() {
    let mut lifecycle = Lifecycle::default();
    lifecycle.adopt(None, at(0));
    lifecycle.spawned(7, at(0));
    assert!(lifecycle.tick(at(START_MS)).contains(&Action::Kill));
    assert_eq!(lifecycle.deadline(), None);
    assert_eq!(lifecycle.misbehaved("nonsense", at(START_MS)), []);
    assert!(spawns(&dies(&mut lifecycle, at(START_MS))));
    running(&mut lifecycle, 8, at(START_MS));
    assert!(lifecycle.misbehaved("nonsense", at(START_MS)).contains(&Action::Kill));
}

#[test]
fn a_successor_of_the_supervisor_takes_over_running_servants_and_starts_the_others() {
    let mut lifecycle = Lifecycle::default();
    lifecycle.adopt(None, at(0));
    running(&mut lifecycle, 7, at(0));
    let saved = lifecycle.clone();
    assert_eq!(lifecycle.adopt(Some(&held(7, false)), at(5)), []);
    assert_eq!((lifecycle.status("x").phase, lifecycle.status("x").restarts), (Phase::Ready, 0));
    let mut lifecycle = saved.clone();
    assert!(spawns(&lifecycle.adopt(Some(&held(7, true)), at(5))), "it exited meanwhile");
    assert_eq!(lifecycle.status("x").restarts, 1);
    let mut lifecycle = saved;
    assert!(spawns(&lifecycle.adopt(None, at(5))), "its exit was handled");
    let mut lost = Lifecycle::default();
    assert_eq!(lost.adopt(Some(&held(7, false)), at(5)), []);
    assert_eq!(lost.status("x").phase, Phase::Starting);
}
