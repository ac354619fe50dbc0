//! Tests of starts: notifications that overtake the report of one, transient failures, hanging starts, and readiness.

use cloister_manifest::model::{Policy, Ready, Restart, Service};
use cloister_wire::control::{Cause, MAX_WAITS_FOR, Phase, State as Enclave};

use super::lifecycle::{MAX_REFUSALS, SPAWN_MS};
use super::simulator::{Simulator, service};
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
    let mut sim = Simulator::new(vec![notifying()]);
    sim.ready("web");
    assert_eq!(sim.phase("web"), Phase::Starting, "init may still report that it never ran");
    sim.spawned("web");
    assert_eq!(sim.phase("web"), Phase::Ready);
    sim.wait(1_000);
    assert_eq!(sim.signals(), []);
}

#[test]
fn a_service_that_is_stopping_before_its_start_is_reported_is_stopping() {
    let mut sim = Simulator::new(vec![notifying()]);
    sim.on(Event::Leaving { id: sim.id("web") });
    sim.spawned("web");
    assert_eq!(sim.phase("web"), Phase::Stopping);
    sim.wait(500);
    assert_eq!(sim.signals(), [sent("web", 9)], "it has the normal stop timeout");
}

#[test]
fn notifications_of_a_failed_start_do_not_count_for_the_next() {
    let mut sim = Simulator::new(vec![notifying(), service("other")]);
    sim.ready("web");
    sim.held.remove("web");
    sim.on(Event::SpawnFailed { id: sim.id("web"), retry: Retry::Soon, error: "out of memory".into() });
    sim.wait(100);
    sim.spawned("web");
    assert_eq!(sim.phase("web"), Phase::Starting);
}

fn refused(sim: &mut Simulator, retry: Retry) {
    sim.held.remove("web");
    sim.on(Event::SpawnFailed { id: sim.id("web"), retry, error: "fork: try again".into() });
}

#[test]
fn a_start_that_fails_for_lack_of_resources_is_retried_regardless_of_the_policy() {
    let web = Service { restart: never(), ..service("web") };
    let mut sim = Simulator::new(vec![web, service("other")]);
    for _ in 0..MAX_REFUSALS {
        refused(&mut sim, Retry::Soon);
        assert_eq!(sim.phase("web"), Phase::BackingOff);
        sim.wait(5_000);
        assert_eq!(sim.phase("web"), Phase::Starting);
    }
    sim.spawned("web");
    assert_eq!(sim.phase("web"), Phase::Ready);
    sim.ends("web", 1);
    assert_eq!(sim.phase("web"), Phase::Failed, "an exit is handled by the policy");
}

#[test]
fn a_refused_start_does_not_count_as_a_restart_and_is_logged() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.spawned("other");
    for _ in 0..5 {
        refused(&mut sim, Retry::Soon);
        let lines: Vec<&Action> = sim.done.iter().filter(|a| matches!(a, Action::Log { .. })).collect();
        assert!(format!("{lines:?}").contains("not started: fork: try again; retrying in "), "{lines:?}");
        sim.wait(5_000);
    }
    sim.spawned("web");
    for _ in 0..3 {
        sim.ends("web", 1);
        assert_eq!(sim.phase("web"), Phase::BackingOff);
        sim.wait(1_000);
        sim.spawned("web");
    }
    sim.ends("web", 1);
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_is_refused_repeatedly_finally_fails() {
    let mut sim = Simulator::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    for _ in 0..=MAX_REFUSALS {
        refused(&mut sim, Retry::Soon);
        sim.wait(5_000);
    }
    assert_eq!(sim.phase("web"), Phase::Failed);
    assert!(!sim.held.contains_key("web"));
}

#[test]
fn a_process_that_dies_before_it_executes_its_program_is_restarted_by_policy() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    for _ in 0..3 {
        refused(&mut sim, Retry::ByPolicy);
        assert_eq!(sim.phase("web"), Phase::BackingOff);
        sim.wait(1_000);
    }
    refused(&mut sim, Retry::ByPolicy);
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_hangs_is_killed() {
    let mut sim = Simulator::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    sim.spawned("other");
    sim.wait(SPAWN_MS - 1);
    assert_eq!((sim.phase("web"), sim.signals()), (Phase::Starting, vec![]));
    sim.wait(1);
    assert_eq!(sim.signals(), [sent("web", 9)]);
    refused(&mut sim, Retry::ByPolicy);
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn a_start_that_is_reported_while_it_is_being_killed_ends_with_its_process() {
    for crash in [false, true] {
        let mut sim = Simulator::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
        sim.spawned("other");
        sim.wait(SPAWN_MS);
        if crash {
            sim.executed("web");
            sim.crash();
        } else {
            sim.spawned("web");
        }
        assert_eq!(sim.phase("web"), Phase::Stopping);
        sim.dies("web", 9);
        assert_eq!(sim.phase("web"), Phase::Failed);
        assert!(!sim.held.contains_key("web"));
    }
}

#[test]
fn a_service_cannot_fill_the_state_before_its_start_is_reported() {
    let mut sim = Simulator::new(vec![notifying()]);
    let id = sim.id("web");
    for _ in 0..1_000 {
        sim.ready("web");
        for verdict in [Verdict::Alive, Verdict::Dead] {
            sim.on(Event::Checked { id, run: 1, verdict });
        }
    }
    assert!(serde_json::to_vec(sim.machine.state()).unwrap().len() < 2_000);
    sim.spawned("web");
    assert_eq!(sim.phase("web"), Phase::Ready);
}

#[test]
fn what_a_start_waited_for_is_in_the_status_and_in_the_log() {
    let web = Service { ready: Ready::Tcp(80), restart: never(), critical: true, ..service("web") };
    let mut sim = Simulator::new(vec![web]);
    let waits_for = |sim: &Simulator| sim.machine.statuses()[0].waits_for.clone();
    assert_eq!(waits_for(&sim), None);
    sim.spawned("web");
    assert_eq!(waits_for(&sim).as_deref(), Some("TCP port 80"));
    sim.on(Event::ProbeFailed { id: sim.id("web"), run: 1, why: "nothing listens".into() });
    assert_eq!(waits_for(&sim).as_deref(), Some("TCP port 80: nothing listens"));
    sim.wait(1_000);
    sim.dies("web", 15);
    let exit = "not ready in time (waited for TCP port 80: nothing listens), signal 15 SIGTERM";
    assert_eq!(sim.enclave(), Enclave::Signaled { service: "web".into(), signal: 15, cause: Cause::Sent });
    assert_eq!(
        waits_for(&sim).as_deref(),
        Some("TCP port 80: nothing listens"),
        "the host can still read it"
    );
    let line = Action::Log { id: None, line: format!("stopping: web ended: {exit}") };
    assert!(sim.done.contains(&line), "{:?}", sim.done);
}

#[test]
fn the_text_of_what_a_start_waits_for_is_bounded() {
    let mut sim = Simulator::new(vec![Service { ready: Ready::Log("é".repeat(999)), ..service("web") }]);
    sim.spawned("web");
    let text = sim.machine.statuses()[0].waits_for.clone().unwrap();
    assert!(text.len() <= MAX_WAITS_FOR && text.starts_with("\"éé"), "{text}");
}

#[test]
fn a_drain_is_performed_once_and_again_after_a_crash() {
    let mut sim = Simulator::new(vec![service("web")]);
    sim.spawned("web");
    sim.on(Event::DrainRequested);
    sim.on(Event::DrainRequested);
    let drains = |sim: &Simulator| sim.done.iter().filter(|action| **action == Action::Drain).count();
    assert_eq!(drains(&sim), 1);
    sim.on(Event::Drained);
    sim.crash();
    assert_eq!((drains(&sim), sim.phase("web")), (2, Phase::Ready));
}

#[test]
fn a_crash_during_a_start_neither_makes_a_service_ready_nor_starts_it_twice() {
    let mut sim = Simulator::new(vec![Service { restart: never(), ..service("web") }, service("other")]);
    sim.crash();
    assert_eq!((sim.spawns(), sim.phase("web")), (vec!["web".into(), "other".into()], Phase::Starting));
    sim.spawned("other");
    refused(&mut sim, Retry::ByPolicy);
    assert_eq!((sim.phase("web"), sim.phase("other")), (Phase::Failed, Phase::Ready));
}

#[test]
fn a_start_that_hangs_across_a_crash_is_killed_too() {
    let mut sim = Simulator::new(vec![service("web")]);
    sim.crash();
    sim.wait(SPAWN_MS);
    sim.crash();
    assert_eq!(sim.signals(), [sent("web", 9), sent("web", 9)]);
}
