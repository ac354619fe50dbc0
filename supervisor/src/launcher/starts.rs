//! Starts, case by case: what overtakes the report of one, what is refused for the moment, what hangs, and what is waited for.

use cloister_manifest::model::{Policy, Ready, Restart, Service};
use cloister_wire::control::{Cause, MAX_WAITS_FOR, Phase, State as Enclave};

use super::life::{MAX_REFUSALS, SPAWN_MS};
use super::rehearsal::{Stage, service};
use super::{Action, Event, Retry, Verdict};

fn sent(name: &str, signal: u8) -> (String, u8) {
    (name.into(), signal)
}

fn never() -> Restart {
    Restart { policy: Policy::Never, ..service("x").restart }
}

fn notifying() -> Service {
    Service { ready: Ready::Notify, ..service("web") }
}

#[test]
fn a_service_that_is_ready_before_its_start_is_reported_is_ready() {
    let mut stage = Stage::new(vec![notifying()]);
    stage.ready("web");
    assert_eq!(stage.phase("web"), Phase::Starting, "init may still report that it never ran");
    stage.spawned("web");
    assert_eq!(stage.phase("web"), Phase::Ready);
    stage.wait(1_000);
    assert_eq!(stage.signals(), []);
}

#[test]
fn a_service_that_leaves_before_its_start_is_reported_is_leaving() {
    let mut stage = Stage::new(vec![notifying()]);
    stage.on(Event::Leaving { id: stage.id("web") });
    stage.spawned("web");
    assert_eq!(stage.phase("web"), Phase::Stopping);
    stage.wait(500);
    assert_eq!(stage.signals(), [sent("web", 9)], "it has as long as any service that stops");
}

#[test]
fn what_a_start_that_failed_said_is_not_held_against_the_next() {
    let mut stage = Stage::new(vec![notifying(), service("other")]);
    stage.ready("web");
    stage.held.remove("web");
    stage.on(Event::SpawnFailed { id: stage.id("web"), retry: Retry::Soon, error: "out of memory".into() });
    stage.wait(100);
    stage.spawned("web");
    assert_eq!(stage.phase("web"), Phase::Starting);
}

fn refused(stage: &mut Stage, retry: Retry) {
    stage.held.remove("web");
    stage.on(Event::SpawnFailed { id: stage.id("web"), retry, error: "fork: try again".into() });
}

#[test]
fn a_start_that_is_refused_for_the_moment_is_tried_again_whatever_the_policy() {
    let web = Service { restart: never(), ..service("web") };
    let mut stage = Stage::new(vec![web, service("other")]);
    for _ in 0..MAX_REFUSALS {
        refused(&mut stage, Retry::Soon);
        assert_eq!(stage.phase("web"), Phase::BackingOff);
        stage.wait(5_000);
        assert_eq!(stage.phase("web"), Phase::Starting);
    }
    stage.spawned("web");
    assert_eq!(stage.phase("web"), Phase::Ready);
    stage.ends("web", 1);
    assert_eq!(stage.phase("web"), Phase::Failed, "an end is another matter");
}

#[test]
fn a_refused_start_is_not_held_against_the_restarts_and_is_said() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.spawned("other");
    for _ in 0..5 {
        refused(&mut stage, Retry::Soon);
        let lines: Vec<&Action> = stage.done.iter().filter(|a| matches!(a, Action::Say { .. })).collect();
        assert!(format!("{lines:?}").contains("not started: fork: try again; trying again in "), "{lines:?}");
        stage.wait(5_000);
    }
    stage.spawned("web");
    for _ in 0..3 {
        stage.ends("web", 1);
        assert_eq!(stage.phase("web"), Phase::BackingOff);
        stage.wait(1_000);
        stage.spawned("web");
    }
    stage.ends("web", 1);
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_is_refused_again_and_again_is_a_failure_in_the_end() {
    let mut stage = Stage::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    for _ in 0..=MAX_REFUSALS {
        refused(&mut stage, Retry::Soon);
        stage.wait(5_000);
    }
    assert_eq!(stage.phase("web"), Phase::Failed);
    assert!(!stage.held.contains_key("web"));
}

#[test]
fn a_process_that_dies_on_its_way_is_restarted_by_its_policy() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    for _ in 0..3 {
        refused(&mut stage, Retry::ByPolicy);
        assert_eq!(stage.phase("web"), Phase::BackingOff);
        stage.wait(1_000);
    }
    refused(&mut stage, Retry::ByPolicy);
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_hangs_is_killed() {
    let mut stage = Stage::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    stage.spawned("other");
    stage.wait(SPAWN_MS - 1);
    assert_eq!((stage.phase("web"), stage.signals()), (Phase::Starting, vec![]));
    stage.wait(1);
    assert_eq!(stage.signals(), [sent("web", 9)]);
    refused(&mut stage, Retry::ByPolicy);
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_is_reported_while_it_is_being_killed_ends_with_its_process() {
    for crash in [false, true] {
        let mut stage = Stage::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
        stage.spawned("other");
        stage.wait(SPAWN_MS);
        if crash {
            stage.executed("web");
            stage.crash();
        } else {
            stage.spawned("web");
        }
        assert_eq!(stage.phase("web"), Phase::Stopping);
        stage.dies("web", 9);
        assert_eq!(stage.phase("web"), Phase::Failed);
        assert!(!stage.held.contains_key("web"));
    }
}

#[test]
fn a_service_cannot_fill_the_state_before_its_start_is_reported() {
    let mut stage = Stage::new(vec![notifying()]);
    let id = stage.id("web");
    for _ in 0..1_000 {
        stage.ready("web");
        for verdict in [Verdict::Alive, Verdict::Dead] {
            stage.on(Event::Checked { id, run: 1, verdict });
        }
    }
    assert!(serde_json::to_vec(stage.machine.state()).unwrap().len() < 2_000);
    stage.spawned("web");
    assert_eq!(stage.phase("web"), Phase::Ready);
}

#[test]
fn what_a_start_waited_for_is_in_the_status_and_in_its_end() {
    let web = Service { ready: Ready::Tcp(80), restart: never(), critical: true, ..service("web") };
    let mut stage = Stage::new(vec![web]);
    let waits_for = |stage: &Stage| stage.machine.statuses()[0].waits_for.clone();
    assert_eq!(waits_for(&stage), None);
    stage.spawned("web");
    assert_eq!(waits_for(&stage).as_deref(), Some("TCP port 80"));
    stage.on(Event::Missed { id: stage.id("web"), run: 1, why: "nothing listens".into() });
    assert_eq!(waits_for(&stage).as_deref(), Some("TCP port 80: nothing listens"));
    stage.wait(1_000);
    stage.dies("web", 15);
    let words = "not ready in time (waited for TCP port 80: nothing listens), signal 15 SIGTERM";
    assert_eq!(stage.enclave(), Enclave::Signaled { service: "web".into(), signal: 15, cause: Cause::Sent });
    assert_eq!(
        waits_for(&stage).as_deref(),
        Some("TCP port 80: nothing listens"),
        "the host can still read it"
    );
    let line = Action::Say { id: None, line: format!("stopping: web ended: {words}") };
    assert!(stage.done.contains(&line), "{:?}", stage.done);
}

#[test]
fn what_a_start_waits_for_is_bounded() {
    let mut stage = Stage::new(vec![Service { ready: Ready::Log("é".repeat(999)), ..service("web") }]);
    stage.spawned("web");
    let text = stage.machine.statuses()[0].waits_for.clone().unwrap();
    assert!(text.len() <= MAX_WAITS_FOR && text.starts_with("\"éé"), "{text}");
}

#[test]
fn a_drain_is_asked_for_once_and_again_after_a_crash() {
    let mut stage = Stage::new(vec![service("web")]);
    stage.spawned("web");
    stage.on(Event::DrainAsked);
    stage.on(Event::DrainAsked);
    let drains = |stage: &Stage| stage.done.iter().filter(|action| **action == Action::Drain).count();
    assert_eq!(drains(&stage), 1);
    stage.on(Event::Drained);
    stage.crash();
    assert_eq!((drains(&stage), stage.phase("web")), (2, Phase::Ready));
}

#[test]
fn a_crash_during_a_start_makes_nothing_ready_and_starts_nothing_twice() {
    let mut stage = Stage::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    stage.crash();
    assert_eq!((stage.spawns(), stage.phase("web")), (vec!["web".into(), "other".into()], Phase::Starting));
    stage.spawned("other");
    refused(&mut stage, Retry::ByPolicy);
    assert_eq!((stage.phase("web"), stage.phase("other")), (Phase::Failed, Phase::Ready));
}

#[test]
fn a_start_that_hangs_over_a_crash_is_killed_too() {
    let mut stage = Stage::new(vec![service("web")]);
    stage.crash();
    stage.wait(SPAWN_MS);
    stage.crash();
    assert_eq!(stage.signals(), [sent("web", 9), sent("web", 9)]);
}
