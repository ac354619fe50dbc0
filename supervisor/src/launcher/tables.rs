//! Tests of the machine's decisions, case by case.

use cloister_manifest::model::{Check, Live, Policy, Ready, Service};
use cloister_wire::control::{Cause, Exit, Phase, State as Enclave, Verb};

use super::simulator::{Simulator, job, service};
use super::{CLOSING_MS, DRAIN_MS, Event, KILL_GRACE_MS, RECOVERY_SHOWN_MS, Retry, Verdict};

fn sent(name: &str, signal: u8) -> (String, u8) {
    (name.into(), signal)
}

#[test]
fn services_start_when_the_services_they_follow_are_ready() {
    let web = Service { after: vec!["db".into()], requires: vec!["init".into()], ..service("web") };
    let db = Service { ready: Ready::Tcp(5432), ..service("db") };
    let mut sim = Simulator::new(vec![db, job("init"), web]);
    assert_eq!(sim.spawns(), ["db", "init"]);
    sim.spawned("db");
    sim.spawned("init");
    sim.ends("init", 0);
    assert_eq!(sim.spawns(), [""; 0], "db is not ready");
    assert_eq!(sim.enclave(), Enclave::Starting);
    sim.ready("db");
    assert_eq!(sim.spawns(), ["web"]);
    sim.spawned("web");
    assert_eq!(sim.enclave(), Enclave::Ready);
    assert_eq!(sim.phase("init"), Phase::Done);
}

#[test]
fn a_service_that_only_follows_a_failed_one_starts_anyway() {
    let db = Service { restart: never(), ..service("db") };
    let web = Service { after: vec!["db".into()], ..service("web") };
    let mut sim = Simulator::new(vec![db, web]);
    sim.on(Event::SpawnFailed { id: sim.id("db"), retry: Retry::Never, error: "no".into() });
    assert_eq!(sim.spawns(), ["db", "web"]);
}

fn never() -> cloister_manifest::model::Restart {
    cloister_manifest::model::Restart { policy: Policy::Never, ..service("x").restart }
}

#[test]
fn each_policy_restarts_as_documented() {
    let table = [
        (Policy::Always, 0, true),
        (Policy::Always, 1, true),
        (Policy::OnFailure, 0, false),
        (Policy::OnFailure, 1, true),
        (Policy::Never, 0, false),
        (Policy::Never, 1, false),
    ];
    for (policy, code, restarts) in table {
        let restart = cloister_manifest::model::Restart { policy, ..service("x").restart };
        let mut sim = Simulator::new(vec![Service { restart, ..service("web") }, service("other")]);
        sim.spawned("web");
        sim.ends("web", code);
        let expected = match (restarts, code) {
            (true, _) => Phase::BackingOff,
            (false, 0) => Phase::Done,
            (false, _) => Phase::Failed,
        };
        assert_eq!(sim.phase("web"), expected, "{policy:?} {code}");
    }
}

#[test]
fn a_dead_service_is_restarted_after_a_pause_measured_from_its_exit() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.spawned("web");
    sim.dies("web", 9);
    sim.spawns();
    sim.wait(74);
    assert_eq!(sim.spawns(), [""; 0], "at least three quarters of the pause");
    sim.wait(26);
    assert_eq!(sim.spawns(), ["web"]);
    sim.spawned("web");
    assert_eq!(sim.restarts("web"), 1);
}

#[test]
fn too_many_restarts_in_a_row_are_a_failure() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.spawned("other");
    for _ in 0..3 {
        sim.spawned("web");
        sim.ends("web", 1);
        assert_eq!(sim.phase("web"), Phase::BackingOff);
        sim.wait(1_000);
    }
    sim.spawned("web");
    sim.ends("web", 1);
    assert_eq!(sim.phase("web"), Phase::Failed);
    assert!(matches!(sim.enclave(), Enclave::Degraded { why } if why == "web has failed after exit code 1"));
}

#[test]
fn a_stable_run_resets_the_count_of_restarts() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    for _ in 0..10 {
        sim.spawned("web");
        sim.wait(10_000);
        sim.ends("web", 1);
        assert_eq!(sim.phase("web"), Phase::BackingOff);
        sim.wait(101);
    }
}

#[test]
fn a_permanent_start_failure_is_not_retried_and_a_transient_one_is() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.on(Event::SpawnFailed { id: sim.id("web"), retry: Retry::Soon, error: "out of memory".into() });
    sim.held.remove("web");
    assert_eq!(sim.phase("web"), Phase::BackingOff);
    sim.wait(100);
    sim.on(Event::SpawnFailed { id: sim.id("web"), retry: Retry::Never, error: "no such file".into() });
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn the_exit_of_a_critical_service_stops_the_rest_in_reverse_order() {
    let web = Service { after: vec!["db".into()], ..service("web") };
    let main = Service { critical: true, restart: never(), ..service("main") };
    let mut sim = Simulator::new(vec![service("db"), web, main]);
    for name in ["db", "main"] {
        sim.spawned(name);
    }
    sim.spawned("web");
    sim.dies("main", 11);
    assert!(matches!(sim.enclave(), Enclave::Stopping { .. }));
    assert_eq!(sim.signals(), [sent("web", 15)], "db runs until web has exited");
    sim.ends("web", 0);
    assert_eq!(sim.signals(), [sent("db", 15)]);
    sim.ends("db", 0);
    let end = Enclave::Signaled { service: "main".into(), signal: 11, cause: Cause::Sent };
    assert_eq!(sim.enclave(), end);
    sim.acknowledge();
    assert_eq!(sim.off, Some(end));
}

#[test]
fn a_stop_drains_before_it_stops() {
    let mut sim = Simulator::new(vec![Service { critical: true, ..service("web") }]);
    sim.spawned("web");
    sim.on(Event::Stop { why: "requested".into() });
    assert_eq!(sim.enclave(), Enclave::Stopping { why: "requested".into() });
    assert_eq!(sim.signals(), []);
    sim.on(Event::Drained);
    assert_eq!(sim.signals(), [sent("web", 15)]);
    sim.dies("web", 15);
    assert_eq!(sim.enclave(), Enclave::Signaled { service: "web".into(), signal: 15, cause: Cause::Sent });
}

#[test]
fn a_stop_waits_for_connections_for_a_limited_time() {
    let mut sim = Simulator::new(vec![service("web")]);
    sim.spawned("web");
    sim.on(Event::Stop { why: "requested".into() });
    sim.wait(DRAIN_MS.min(2_500));
    assert_eq!(sim.signals(), [sent("web", 15)]);
}

#[test]
fn a_stop_completes_even_if_no_process_exits() {
    let mut sim = Simulator::new(vec![service("web")]);
    sim.spawned("web");
    sim.on(Event::Stop { why: "requested".into() });
    sim.on(Event::Drained);
    sim.wait(500);
    assert_eq!(sim.signals(), [sent("web", 15), sent("web", 9)]);
    sim.wait(5_000 + KILL_GRACE_MS + CLOSING_MS);
    assert!(sim.off.is_some());
}

#[test]
fn an_unread_final_state_waits_and_a_read_one_does_not() {
    let mut sim = Simulator::new(vec![Service { critical: true, ..service("web") }]);
    sim.spawned("web");
    sim.ends("web", 0);
    sim.wait(CLOSING_MS - 1);
    assert_eq!(sim.off, None);
    sim.on(Event::Seen);
    assert_eq!(sim.off, None, "the log readers do not have everything");
    sim.on(Event::Flushed);
    assert_eq!(sim.off, Some(Enclave::Exited { service: "web".into(), code: 0 }));
}

#[test]
fn a_service_ends_with_its_main_process_regardless_of_the_exit_code() {
    for code in [0, 1] {
        let mut sim = Simulator::new(vec![service("web"), service("other")]);
        sim.spawned("web");
        sim.spawned("other");
        sim.exits("web", Exit::Code(code));
        assert_eq!(sim.signals(), [sent("web", 9)]);
        sim.empties("web");
        assert_ne!(sim.phase("web"), Phase::Ready);
        assert_eq!(sim.phase("other"), Phase::Ready);
    }
}

#[test]
fn the_reports_of_an_exit_may_arrive_in_any_order() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.spawned("web");
    sim.empties("web");
    assert_eq!(sim.phase("web"), Phase::Ready);
    sim.exits("web", Exit::Code(0));
    assert_eq!(sim.phase("web"), Phase::Done);
    assert!(!sim.held.contains_key("web"));
}

#[test]
fn a_service_that_loses_a_dependency_stops() {
    let db = Service { restart: never(), ..service("db") };
    let web = Service { requires: vec!["db".into()], ..service("web") };
    let mut sim = Simulator::new(vec![db, web, service("other")]);
    sim.spawned("db");
    sim.spawned("web");
    sim.ends("db", 1);
    assert_eq!(sim.signals(), [sent("web", 15)]);
    sim.ends("web", 0);
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn a_service_survives_a_restart_of_its_dependency() {
    let web = Service { requires: vec!["db".into()], ..service("web") };
    let mut sim = Simulator::new(vec![service("db"), web]);
    sim.spawned("db");
    sim.spawned("web");
    sim.ends("db", 1);
    assert_eq!(sim.signals(), []);
    assert_eq!(sim.phase("web"), Phase::Ready);
}

fn watchdog() -> Service {
    let live = Live { check: Check::Watchdog, interval_ms: 100, timeout_ms: 100, threshold: 2 };
    Service { live: Some(live), ..service("web") }
}

#[test]
fn a_service_that_misses_watchdog_pings_is_killed_after_its_threshold() {
    let mut sim = Simulator::new(vec![watchdog(), service("other")]);
    sim.spawned("web");
    for _ in 0..5 {
        sim.wait(99);
        sim.on(Event::WatchdogPing { id: sim.id("web") });
    }
    sim.wait(199);
    assert_eq!(sim.phase("web"), Phase::Ready);
    sim.wait(1);
    assert_eq!(sim.signals(), [sent("web", 9)]);
    assert_eq!(sim.phase("web"), Phase::Unhealthy);
    sim.dies("web", 9);
    assert_eq!(sim.phase("web"), Phase::BackingOff);
}

#[test]
fn only_consecutive_failed_checks_count() {
    let live = Live { check: Check::Tcp(80), interval_ms: 100, timeout_ms: 100, threshold: 2 };
    let mut sim = Simulator::new(vec![Service { live: Some(live), ..service("web") }, service("other")]);
    sim.spawned("web");
    let id = sim.id("web");
    for verdict in [Verdict::Dead, Verdict::Alive, Verdict::Dead] {
        sim.on(Event::Checked { id, run: 1, verdict });
    }
    assert_eq!(sim.signals(), []);
    sim.on(Event::Checked { id, run: 0, verdict: Verdict::Dead });
    assert_eq!(sim.signals(), [], "of an earlier run");
    sim.on(Event::Checked { id, run: 1, verdict: Verdict::Dead });
    assert_eq!(sim.signals(), [sent("web", 9)]);
}

#[test]
fn a_requested_restart_is_not_a_failure() {
    let mut sim = Simulator::new(vec![Service { critical: true, ..service("web") }]);
    sim.spawned("web");
    sim.on(Event::Requested { id: sim.id("web"), verb: Verb::Restart });
    assert_eq!(sim.signals(), [sent("web", 15)]);
    sim.spawns();
    sim.dies("web", 15);
    assert_eq!(sim.spawns(), ["web"], "immediately, without a pause");
    sim.spawned("web");
    assert_eq!(sim.enclave(), Enclave::Ready);
}

#[test]
fn a_requested_stop_stops_dependents_first_and_the_enclave_continues() {
    let web = Service { requires: vec!["db".into()], critical: true, ..service("web") };
    let mut sim = Simulator::new(vec![service("db"), web]);
    sim.spawned("db");
    sim.spawned("web");
    sim.on(Event::Requested { id: sim.id("db"), verb: Verb::Stop });
    assert_eq!(sim.signals(), [sent("web", 15)]);
    sim.ends("web", 0);
    assert_eq!(sim.signals(), [sent("db", 15)]);
    sim.ends("db", 0);
    assert!(matches!(sim.enclave(), Enclave::Degraded { why } if why == "db is stopped; web is stopped"));
    sim.spawns();
    sim.on(Event::Requested { id: sim.id("web"), verb: Verb::Start });
    assert_eq!(sim.spawns(), ["db"], "its dependency starts with it");
    sim.spawned("db");
    assert_eq!(sim.spawns(), ["web"]);
}

#[test]
fn a_start_requested_during_a_stop_restarts_the_service() {
    let mut sim = Simulator::new(vec![service("web"), service("other")]);
    sim.spawned("web");
    sim.on(Event::Requested { id: sim.id("web"), verb: Verb::Stop });
    sim.on(Event::Requested { id: sim.id("web"), verb: Verb::Start });
    sim.spawns();
    sim.ends("web", 0);
    assert_eq!(sim.spawns(), ["web"]);
}

#[test]
fn the_status_reports_a_crash_until_a_host_has_read_it() {
    let mut sim = Simulator::new(vec![service("web")]);
    sim.spawned("web");
    sim.crash();
    assert!(matches!(sim.enclave(), Enclave::Degraded { .. }));
    sim.on(Event::StatusSent);
    assert_eq!(sim.enclave(), Enclave::Ready);
    sim.crash();
    sim.wait(RECOVERY_SHOWN_MS);
    assert_eq!(sim.enclave(), Enclave::Ready);
    assert_eq!(sim.restarts("web"), 0, "the service kept running");
}

#[test]
fn nothing_is_degraded_before_the_start_is_complete() {
    let probed = |name| Service { ready: Ready::Tcp(80), ..service(name) };
    let mut sim = Simulator::new(vec![Service { critical: true, ..probed("web") }, service("sidecar")]);
    sim.spawned("web");
    sim.crash();
    assert_eq!(sim.enclave(), Enclave::Starting, "nothing serves yet");
    sim.spawned("sidecar");
    sim.ends("web", 1);
    assert_eq!(sim.enclave(), Enclave::Starting, "the critical service was never ready");
    sim.wait(1_000);
    sim.spawned("web");
    sim.ready("web");
    assert_eq!(sim.enclave(), Enclave::Ready);
    sim.ends("web", 1);
    assert!(matches!(sim.enclave(), Enclave::Degraded { .. }));
}

#[test]
fn a_sidecar_that_fails_at_its_start_does_not_delay_readiness() {
    let mut sim = Simulator::new(vec![Service { critical: true, ..service("web") }, service("sidecar")]);
    sim.spawned("web");
    sim.spawned("sidecar");
    assert_eq!(sim.enclave(), Enclave::Ready);
    let probed = Service { ready: Ready::Tcp(80), ..service("sidecar") };
    let mut sim = Simulator::new(vec![Service { critical: true, ..service("web") }, probed]);
    sim.spawned("web");
    sim.spawned("sidecar");
    assert_eq!(sim.enclave(), Enclave::Starting);
    sim.ends("sidecar", 1);
    assert!(matches!(sim.enclave(), Enclave::Degraded { .. }));
}

#[test]
fn a_start_may_fail_after_a_crash() {
    let mut sim = Simulator::new(vec![Service { ready: Ready::Tcp(80), ..service("web") }, service("other")]);
    sim.crash();
    assert_eq!(sim.phase("web"), Phase::Starting, "init is still starting it");
    sim.held.remove("web");
    sim.on(Event::SpawnFailed { id: sim.id("web"), retry: Retry::Never, error: "no such file".into() });
    assert_eq!(sim.phase("web"), Phase::Failed);
}

#[test]
fn an_exit_during_a_crash_is_not_lost() {
    let mut sim = Simulator::new(vec![Service { critical: true, restart: never(), ..service("web") }]);
    sim.spawned("web");
    let held = sim.held.get_mut("web").unwrap();
    let exit = Exit::Code(9);
    held.ended = Some(cloister_wire::hold::Ended { name: "web".into(), pid: held.pid, exit, at_ns: 5 });
    held.populated = false;
    sim.crash();
    assert_eq!(sim.enclave(), Enclave::Exited { service: "web".into(), code: 9 });
}

#[test]
fn a_successor_repeats_the_request_to_power_off() {
    let mut sim = Simulator::new(vec![Service { critical: true, restart: never(), ..service("web") }]);
    sim.spawned("web");
    sim.dies("web", 9);
    sim.wait(CLOSING_MS);
    let requested = sim.off.clone();
    sim.crash();
    assert_eq!((requested.is_some(), &sim.off), (true, &requested));
}
