//! What the machine decides, case by case.

use cloister_manifest::model::{Check, Live, Policy, Ready, Service};
use cloister_wire::control::{Cause, Exit, Phase, State as Enclave, Verb};

use super::rehearsal::{Stage, job, service};
use super::{CLOSING_MS, DRAIN_MS, Event, KILL_GRACE_MS, RECOVERY_SHOWN_MS, Retry, Verdict};

fn sent(name: &str, signal: u8) -> (String, u8) {
    (name.into(), signal)
}

#[test]
fn services_start_when_what_they_follow_is_ready() {
    let web = Service { after: vec!["db".into()], requires: vec!["init".into()], ..service("web") };
    let db = Service { ready: Ready::Tcp(5432), ..service("db") };
    let mut stage = Stage::new(vec![db, job("init"), web]);
    assert_eq!(stage.spawns(), ["db", "init"]);
    stage.spawned("db");
    stage.spawned("init");
    stage.ends("init", 0);
    assert_eq!(stage.spawns(), [""; 0], "db is not ready");
    assert_eq!(stage.enclave(), Enclave::Starting);
    stage.ready("db");
    assert_eq!(stage.spawns(), ["web"]);
    stage.spawned("web");
    assert_eq!(stage.enclave(), Enclave::Ready);
    assert_eq!(stage.phase("init"), Phase::Done);
}

#[test]
fn what_only_follows_a_failed_service_starts_all_the_same() {
    let db = Service { restart: never(), ..service("db") };
    let web = Service { after: vec!["db".into()], ..service("web") };
    let mut stage = Stage::new(vec![db, web]);
    stage.on(Event::SpawnFailed { id: stage.id("db"), retry: Retry::Never, error: "no".into() });
    assert_eq!(stage.spawns(), ["db", "web"]);
}

fn never() -> cloister_manifest::model::Restart {
    cloister_manifest::model::Restart { policy: Policy::Never, ..service("x").restart }
}

#[test]
fn each_policy_restarts_what_it_says() {
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
        let mut stage = Stage::new(vec![Service { restart, ..service("web") }, service("other")]);
        stage.spawned("web");
        stage.ends("web", code);
        let expected = match (restarts, code) {
            (true, _) => Phase::BackingOff,
            (false, 0) => Phase::Done,
            (false, _) => Phase::Failed,
        };
        assert_eq!(stage.phase("web"), expected, "{policy:?} {code}");
    }
}

#[test]
fn a_dead_service_is_restarted_after_a_pause_measured_from_its_exit() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.spawned("web");
    stage.dies("web", 9);
    stage.spawns();
    stage.wait(74);
    assert_eq!(stage.spawns(), [""; 0], "at least three quarters of the pause");
    stage.wait(26);
    assert_eq!(stage.spawns(), ["web"]);
    stage.spawned("web");
    assert_eq!(stage.restarts("web"), 1);
}

#[test]
fn too_many_restarts_in_a_row_are_a_failure() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.spawned("other");
    for _ in 0..3 {
        stage.spawned("web");
        stage.ends("web", 1);
        assert_eq!(stage.phase("web"), Phase::BackingOff);
        stage.wait(1_000);
    }
    stage.spawned("web");
    stage.ends("web", 1);
    assert_eq!(stage.phase("web"), Phase::Failed);
    assert!(
        matches!(stage.enclave(), Enclave::Degraded { why } if why == "web has failed after exit code 1")
    );
}

#[test]
fn a_stable_time_starts_the_count_over() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    for _ in 0..10 {
        stage.spawned("web");
        stage.wait(10_000);
        stage.ends("web", 1);
        assert_eq!(stage.phase("web"), Phase::BackingOff);
        stage.wait(101);
    }
}

#[test]
fn what_can_never_start_is_not_tried_again_and_what_may_is() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.on(Event::SpawnFailed { id: stage.id("web"), retry: Retry::Soon, error: "out of memory".into() });
    stage.held.remove("web");
    assert_eq!(stage.phase("web"), Phase::BackingOff);
    stage.wait(100);
    stage.on(Event::SpawnFailed { id: stage.id("web"), retry: Retry::Never, error: "no such file".into() });
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn a_critical_end_stops_the_rest_in_reverse_order() {
    let web = Service { after: vec!["db".into()], ..service("web") };
    let main = Service { critical: true, restart: never(), ..service("main") };
    let mut stage = Stage::new(vec![service("db"), web, main]);
    for name in ["db", "main"] {
        stage.spawned(name);
    }
    stage.spawned("web");
    stage.dies("main", 11);
    assert!(matches!(stage.enclave(), Enclave::Stopping { .. }));
    assert_eq!(stage.signals(), [sent("web", 15)], "db holds until web is gone");
    stage.ends("web", 0);
    assert_eq!(stage.signals(), [sent("db", 15)]);
    stage.ends("db", 0);
    let end = Enclave::Signaled { service: "main".into(), signal: 11, cause: Cause::Sent };
    assert_eq!(stage.enclave(), end);
    stage.acknowledge();
    assert_eq!(stage.off, Some(end));
}

#[test]
fn a_stop_drains_before_it_stops() {
    let mut stage = Stage::new(vec![Service { critical: true, ..service("web") }]);
    stage.spawned("web");
    stage.on(Event::Stop { why: "asked".into() });
    assert_eq!(stage.enclave(), Enclave::Stopping { why: "asked".into() });
    assert_eq!(stage.signals(), []);
    stage.on(Event::Drained);
    assert_eq!(stage.signals(), [sent("web", 15)]);
    stage.dies("web", 15);
    assert_eq!(stage.enclave(), Enclave::Signaled { service: "web".into(), signal: 15, cause: Cause::Sent });
}

#[test]
fn a_stop_waits_for_connections_only_so_long() {
    let mut stage = Stage::new(vec![service("web")]);
    stage.spawned("web");
    stage.on(Event::Stop { why: "asked".into() });
    stage.wait(DRAIN_MS.min(2_500));
    assert_eq!(stage.signals(), [sent("web", 15)]);
}

#[test]
fn a_stop_ends_even_if_nothing_dies() {
    let mut stage = Stage::new(vec![service("web")]);
    stage.spawned("web");
    stage.on(Event::Stop { why: "asked".into() });
    stage.on(Event::Drained);
    stage.wait(500);
    assert_eq!(stage.signals(), [sent("web", 15), sent("web", 9)]);
    stage.wait(5_000 + KILL_GRACE_MS + CLOSING_MS);
    assert!(stage.off.is_some());
}

#[test]
fn an_unread_final_state_waits_and_a_read_one_does_not() {
    let mut stage = Stage::new(vec![Service { critical: true, ..service("web") }]);
    stage.spawned("web");
    stage.ends("web", 0);
    stage.wait(CLOSING_MS - 1);
    assert_eq!(stage.off, None);
    stage.on(Event::Seen);
    assert_eq!(stage.off, None, "the log readers do not have everything");
    stage.on(Event::Flushed);
    assert_eq!(stage.off, Some(Enclave::Exited { service: "web".into(), code: 0 }));
}

#[test]
fn a_service_ends_with_its_main_process_whatever_that_leaves_behind() {
    for code in [0, 1] {
        let mut stage = Stage::new(vec![service("web"), service("other")]);
        stage.spawned("web");
        stage.spawned("other");
        stage.exits("web", Exit::Code(code));
        assert_eq!(stage.signals(), [sent("web", 9)]);
        stage.empties("web");
        assert_ne!(stage.phase("web"), Phase::Ready);
        assert_eq!(stage.phase("other"), Phase::Ready);
    }
}

#[test]
fn an_end_told_backwards_is_the_same_end() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.spawned("web");
    stage.empties("web");
    assert_eq!(stage.phase("web"), Phase::Ready);
    stage.exits("web", Exit::Code(0));
    assert_eq!(stage.phase("web"), Phase::Done);
    assert!(!stage.held.contains_key("web"));
}

#[test]
fn a_service_that_loses_what_it_requires_stops() {
    let db = Service { restart: never(), ..service("db") };
    let web = Service { requires: vec!["db".into()], ..service("web") };
    let mut stage = Stage::new(vec![db, web, service("other")]);
    stage.spawned("db");
    stage.spawned("web");
    stage.ends("db", 1);
    assert_eq!(stage.signals(), [sent("web", 15)]);
    stage.ends("web", 0);
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn a_service_outlives_a_restart_of_what_it_requires() {
    let web = Service { requires: vec!["db".into()], ..service("web") };
    let mut stage = Stage::new(vec![service("db"), web]);
    stage.spawned("db");
    stage.spawned("web");
    stage.ends("db", 1);
    assert_eq!(stage.signals(), []);
    assert_eq!(stage.phase("web"), Phase::Ready);
}

fn watchdog() -> Service {
    let live = Live { check: Check::Watchdog, interval_ms: 100, timeout_ms: 100, threshold: 2 };
    Service { live: Some(live), ..service("web") }
}

#[test]
fn a_watchdog_that_is_not_petted_bites_after_its_threshold() {
    let mut stage = Stage::new(vec![watchdog(), service("other")]);
    stage.spawned("web");
    for _ in 0..5 {
        stage.wait(99);
        stage.on(Event::Petted { id: stage.id("web") });
    }
    stage.wait(199);
    assert_eq!(stage.phase("web"), Phase::Ready);
    stage.wait(1);
    assert_eq!(stage.signals(), [sent("web", 9)]);
    assert_eq!(stage.phase("web"), Phase::Unhealthy);
    stage.dies("web", 9);
    assert_eq!(stage.phase("web"), Phase::BackingOff);
}

#[test]
fn failed_checks_count_in_a_row_only() {
    let live = Live { check: Check::Tcp(80), interval_ms: 100, timeout_ms: 100, threshold: 2 };
    let mut stage = Stage::new(vec![Service { live: Some(live), ..service("web") }, service("other")]);
    stage.spawned("web");
    let id = stage.id("web");
    for verdict in [Verdict::Dead, Verdict::Alive, Verdict::Dead] {
        stage.on(Event::Checked { id, run: 1, verdict });
    }
    assert_eq!(stage.signals(), []);
    stage.on(Event::Checked { id, run: 0, verdict: Verdict::Dead });
    assert_eq!(stage.signals(), [], "said of an earlier run");
    stage.on(Event::Checked { id, run: 1, verdict: Verdict::Dead });
    assert_eq!(stage.signals(), [sent("web", 9)]);
}

#[test]
fn a_restart_by_hand_is_no_failure() {
    let mut stage = Stage::new(vec![Service { critical: true, ..service("web") }]);
    stage.spawned("web");
    stage.on(Event::Asked { id: stage.id("web"), verb: Verb::Restart });
    assert_eq!(stage.signals(), [sent("web", 15)]);
    stage.spawns();
    stage.dies("web", 15);
    assert_eq!(stage.spawns(), ["web"], "at once, without a pause");
    stage.spawned("web");
    assert_eq!(stage.enclave(), Enclave::Ready);
}

#[test]
fn a_stop_by_hand_takes_what_requires_it_first_and_the_enclave_goes_on() {
    let web = Service { requires: vec!["db".into()], critical: true, ..service("web") };
    let mut stage = Stage::new(vec![service("db"), web]);
    stage.spawned("db");
    stage.spawned("web");
    stage.on(Event::Asked { id: stage.id("db"), verb: Verb::Stop });
    assert_eq!(stage.signals(), [sent("web", 15)]);
    stage.ends("web", 0);
    assert_eq!(stage.signals(), [sent("db", 15)]);
    stage.ends("db", 0);
    assert!(matches!(stage.enclave(), Enclave::Degraded { why } if why == "db is stopped; web is stopped"));
    stage.spawns();
    stage.on(Event::Asked { id: stage.id("web"), verb: Verb::Start });
    assert_eq!(stage.spawns(), ["db"], "what it requires starts with it");
    stage.spawned("db");
    assert_eq!(stage.spawns(), ["web"]);
}

#[test]
fn a_start_while_it_stops_starts_it_again() {
    let mut stage = Stage::new(vec![service("web"), service("other")]);
    stage.spawned("web");
    stage.on(Event::Asked { id: stage.id("web"), verb: Verb::Stop });
    stage.on(Event::Asked { id: stage.id("web"), verb: Verb::Start });
    stage.spawns();
    stage.ends("web", 0);
    assert_eq!(stage.spawns(), ["web"]);
}

#[test]
fn after_a_crash_the_status_says_so_until_a_host_has_read_it() {
    let mut stage = Stage::new(vec![service("web")]);
    stage.spawned("web");
    stage.crash();
    assert!(matches!(stage.enclave(), Enclave::Degraded { .. }));
    stage.on(Event::Told);
    assert_eq!(stage.enclave(), Enclave::Ready);
    stage.crash();
    stage.wait(RECOVERY_SHOWN_MS);
    assert_eq!(stage.enclave(), Enclave::Ready);
    assert_eq!(stage.restarts("web"), 0, "the service ran on");
}

#[test]
fn nothing_is_degraded_before_the_start_is_over() {
    let probed = |name| Service { ready: Ready::Tcp(80), ..service(name) };
    let mut stage = Stage::new(vec![Service { critical: true, ..probed("web") }, service("sidecar")]);
    stage.spawned("web");
    stage.crash();
    assert_eq!(stage.enclave(), Enclave::Starting, "nothing serves yet");
    stage.spawned("sidecar");
    stage.ends("web", 1);
    assert_eq!(stage.enclave(), Enclave::Starting, "what decides over the enclave was never ready");
    stage.wait(1_000);
    stage.spawned("web");
    stage.ready("web");
    assert_eq!(stage.enclave(), Enclave::Ready);
    stage.ends("web", 1);
    assert!(matches!(stage.enclave(), Enclave::Degraded { .. }));
}

#[test]
fn a_sidecar_that_fails_at_its_start_holds_up_nobody() {
    let mut stage = Stage::new(vec![Service { critical: true, ..service("web") }, service("sidecar")]);
    stage.spawned("web");
    stage.spawned("sidecar");
    assert_eq!(stage.enclave(), Enclave::Ready);
    let probed = Service { ready: Ready::Tcp(80), ..service("sidecar") };
    let mut stage = Stage::new(vec![Service { critical: true, ..service("web") }, probed]);
    stage.spawned("web");
    stage.spawned("sidecar");
    assert_eq!(stage.enclave(), Enclave::Starting);
    stage.ends("sidecar", 1);
    assert!(matches!(stage.enclave(), Enclave::Degraded { .. }));
}

#[test]
fn a_start_that_fails_after_a_crash_is_a_start_that_failed() {
    let mut stage = Stage::new(vec![Service { ready: Ready::Tcp(80), ..service("web") }, service("other")]);
    stage.crash();
    assert_eq!(stage.phase("web"), Phase::Starting, "init was seen starting it");
    stage.held.remove("web");
    stage.on(Event::SpawnFailed { id: stage.id("web"), retry: Retry::Never, error: "no such file".into() });
    assert_eq!(stage.phase("web"), Phase::Failed);
}

#[test]
fn an_exit_during_a_crash_is_not_lost() {
    let mut stage = Stage::new(vec![Service { critical: true, restart: never(), ..service("web") }]);
    stage.spawned("web");
    let held = stage.held.get_mut("web").unwrap();
    let exit = Exit::Code(9);
    held.ended = Some(cloister_wire::hold::Ended { name: "web".into(), pid: held.pid, exit, at_ns: 5 });
    held.populated = false;
    stage.crash();
    assert_eq!(stage.enclave(), Enclave::Exited { service: "web".into(), code: 9 });
}

#[test]
fn a_crash_at_the_last_word_says_it_again() {
    let mut stage = Stage::new(vec![Service { critical: true, restart: never(), ..service("web") }]);
    stage.spawned("web");
    stage.dies("web", 9);
    stage.wait(CLOSING_MS);
    let said = stage.off.clone();
    stage.crash();
    assert_eq!((said.is_some(), &stage.off), (true, &said));
}
