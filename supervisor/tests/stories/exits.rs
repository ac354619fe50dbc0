//! Tests of exits: exit codes, signals, stop, remaining processes.

use cloister_manifest::model::{Ingress, Service};
use cloister_manifest::{Manifest, Platform};
use cloister_wire::control::{Cause, Reply, Request, State};
use cloister_wire::logs::Stream;

use crate::enclave::Enclave;
use crate::host::{output, soon};
use crate::manifest::{critical, job, manifest, service, until_term};

async fn end_of(manifest: cloister_manifest::Manifest) -> State {
    let enclave = Enclave::boot(&manifest);
    let state = enclave.host().await.final_state().await;
    assert_eq!(soon(enclave.init.powered_off()).await, state);
    assert!(enclave.init.running().is_empty());
    state
}

#[tokio::test]
async fn the_enclave_ends_with_the_exit_code_of_its_critical_service() {
    for code in [0, 1, 42, 255] {
        let state = end_of(manifest(vec![critical("web", &format!("exit {code}"))])).await;
        assert_eq!(state, State::Exited { service: "web".into(), code });
    }
}

#[tokio::test]
async fn a_death_by_signal_is_reported_as_one() {
    let state = end_of(manifest(vec![critical("web", "kill -SEGV $$")])).await;
    assert_eq!(state, State::Signaled { service: "web".into(), signal: 11, cause: Cause::Sent });
}

#[tokio::test]
async fn a_missing_program_is_a_fatal_state_that_names_it() {
    let web = Service { argv: vec!["/no/such/program".into()], ..critical("web", "") };
    let State::Fatal { stage, error } = end_of(manifest(vec![web])).await else { panic!("not fatal") };
    assert_eq!(stage, "start of web");
    assert!(error.contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn a_malformed_manifest_is_a_fatal_state_with_the_reason() {
    let enclave = Enclave::boot_with(b"{\"version\": 1}");
    let State::Fatal { stage, error } = enclave.host().await.final_state().await else { panic!("not fatal") };
    assert_eq!(stage, "manifest");
    assert!(error.contains("missing field"), "{error}");
    soon(enclave.init.powered_off()).await;
}

#[tokio::test]
async fn on_a_platform_that_the_manifest_does_not_allow_nothing_starts() {
    let entry = Ingress { port: 80, service: "web".into(), target: 8080, proxy_protocol: false };
    let services = vec![critical("web", "exit 0")];
    let manifest = Manifest { platforms: vec![Platform::Nitro], ingress: vec![entry], ..manifest(services) };
    let enclave = Enclave::boot_on("snp", &manifest);
    let mut host = enclave.host().await;
    let State::Fatal { stage, error } = host.final_state().await else { panic!("not fatal") };
    assert_eq!(stage, "platform");
    for part in ["platform is snp", "allows only nitro", "add snp to `platforms`"] {
        assert!(error.contains(part), "{error}");
    }
    let last = host.seen.last().unwrap();
    assert_eq!((last.platform.as_str(), last.services.len(), last.servants.len()), ("snp", 0, 0));
    soon(enclave.init.powered_off()).await;
    assert_eq!(enclave.init.starts(), 0, "neither the service nor the gateway was started");
    let allowed = Manifest { platforms: vec![Platform::Snp], ingress: vec![], ..manifest };
    let enclave = Enclave::boot_on("snp", &allowed);
    let ended = enclave.host().await.final_state().await;
    assert_eq!(ended, State::Exited { service: "web".into(), code: 0 });
}

#[tokio::test]
async fn an_enclave_of_jobs_ends_when_all_are_done() {
    let state = end_of(manifest(vec![job("one", "exit 0"), job("two", "exit 0")])).await;
    assert_eq!(state, State::Exited { service: "two".into(), code: 0 });
    let state = end_of(manifest(vec![job("one", "exit 5"), job("two", "exit 0")])).await;
    assert_eq!(state, State::Exited { service: "one".into(), code: 5 });
}

#[tokio::test]
async fn a_stop_stops_services_in_reverse_order() {
    let script = |name: &str| {
        format!("trap 'echo {name} stops; exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done")
    };
    let db = service("db", &script("db"));
    let web = Service { after: vec!["db".into()], critical: true, ..service("web", &script("web")) };
    let enclave = Enclave::boot(&manifest(vec![db, web]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    let mut log = enclave.logs(0, true).await;
    log.until("web", Stream::Stdout, "up").await;
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    assert_eq!(host.final_state().await, State::Exited { service: "web".into(), code: 0 });
    let all = log.rest().await;
    let ends: Vec<String> = all
        .iter()
        .filter_map(|r| match r {
            cloister_wire::logs::Record::Output { service, bytes, stream: Stream::Stdout, .. }
                if bytes.ends_with(b"stops\n") =>
            {
                Some(service.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends, ["web", "db"]);
}

#[tokio::test]
async fn a_service_that_ignores_its_stop_signal_is_killed() {
    let web = Service {
        stop_timeout_ms: 50,
        ..critical("web", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "up").await;
    host.request(Request::Stop).await;
    let state = host.final_state().await;
    assert_eq!(state, State::Signaled { service: "web".into(), signal: 9, cause: Cause::Sent });
}

#[tokio::test]
async fn a_service_exits_with_its_main_process() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", "sleep 300 & exit 0")]));
    let mut host = enclave.host().await;
    assert_eq!(host.final_state().await, State::Exited { service: "web".into(), code: 0 });
}

#[tokio::test]
async fn the_last_lines_of_a_service_reach_the_host() {
    let web = critical("web", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 1");
    let enclave = Enclave::boot(&manifest(vec![web]));
    let log = enclave.logs(0, true).await;
    let mut host = enclave.host().await;
    assert_eq!(host.final_state().await, State::Exited { service: "web".into(), code: 1 });
    let printed = output(&log.rest().await, "web", Stream::Stdout);
    assert_eq!(printed.lines().count(), 2000);
    assert!(printed.ends_with("line 1999\n"));
}

#[tokio::test]
async fn an_unresponsive_host_does_not_block_the_power_off() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", "exit 7")]));
    let state = soon(enclave.init.powered_off()).await;
    assert_eq!(state, State::Exited { service: "web".into(), code: 7 });
}

#[tokio::test]
async fn a_second_stop_has_no_effect() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", &until_term(0))]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "up").await;
    host.request(Request::Stop).await;
    host.request(Request::Stop).await;
    assert_eq!(host.final_state().await, State::Exited { service: "web".into(), code: 0 });
}
