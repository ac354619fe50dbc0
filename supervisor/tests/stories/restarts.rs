//! Tests of services that exit and are restarted, or not.

use cloister_manifest::model::{Check, Live, Policy, Restart, Service};
use cloister_wire::control::{Exit, Phase, State, Status};
use cloister_wire::logs::Stream;

use crate::enclave::Enclave;
use crate::manifest::{critical, manifest, restart, service};

#[tokio::test]
async fn a_dead_service_is_restarted_after_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("if [ -e {0} ]; then exec sleep 1000; fi; touch {0}; exit 3", mark.display());
    let web = Service { restart: restart(Policy::OnFailure), ..critical("web", &script) };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    let status = host.until(|s| s.state == State::Ready && s.services[0].restarts == 1).await;
    assert_eq!(status.services[0].last_exit, Some(Exit::Code(3)));
    let line = enclave.logs(0, true).await.until("web", Stream::Supervisor, "restarting in").await;
    assert!(line.contains("ms after exit code 3"), "{line}");
}

#[tokio::test]
async fn a_service_that_keeps_dying_fails_and_the_enclave_ends_with_its_code() {
    let web = Service { restart: restart(Policy::Always), ..critical("web", "exit 9") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    assert_eq!(host.final_state().await, State::Exited { service: "web".into(), code: 9 });
    let web = &host.seen.last().unwrap().services[0];
    assert_eq!((web.phase, web.restarts), (Phase::Failed, 3));
}

#[tokio::test]
async fn a_failed_service_that_is_not_critical_degrades_the_enclave() {
    let cache = service("cache", "exit 1");
    let web = critical("web", "exec sleep 1000");
    let enclave = Enclave::boot(&manifest(vec![cache, web]));
    let mut host = enclave.host().await;
    // Before that it waits for its restart, and for a moment it is stopping.
    let failed = |s: &Status| s.services.first().is_some_and(|cache| cache.phase == Phase::Failed);
    let state = host.until(|s| failed(s) && s.services[1].phase == Phase::Ready).await.state;
    assert_eq!(state, State::Degraded { why: "cache has failed after exit code 1".into() });
}

#[tokio::test]
async fn a_service_that_stops_notifying_its_watchdog_is_killed_and_restarted() {
    let live = Live { check: Check::Watchdog, interval_ms: 50, timeout_ms: 50, threshold: 1 };
    let restart = Restart { delay_ms: 10_000, max_delay_ms: 10_000, ..restart(Policy::OnFailure) };
    let script = "echo $WATCHDOG_USEC; exec sleep 1000";
    let web = Service { live: Some(live), restart, ..critical("web", script) };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    let status = host.until(|s| s.services.first().is_some_and(|w| w.phase == Phase::BackingOff)).await;
    assert!(matches!(status.services[0].last_exit, Some(Exit::Signal { signal: 9, .. })));
    assert!(host.seen.iter().any(|s| s.services.first().is_some_and(|w| w.phase == Phase::Unhealthy)));
    enclave.logs(0, true).await.until("web", Stream::Stdout, "50000\n").await;
}
