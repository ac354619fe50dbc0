//! Tests of crashes of the supervisor.

use cloister_manifest::model::{Policy, Ready, Service};
use cloister_wire::control::{Phase, Reply, Request, State};
use cloister_wire::logs::{Record, Stream};

use crate::enclave::Enclave;
use crate::host::{output, soon};
use crate::manifest::{critical, manifest, restart, service, until_term};

#[tokio::test]
async fn services_survive_a_crash_of_the_supervisor() {
    let mut enclave = Enclave::boot(&manifest(vec![
        critical("web", &until_term(0)),
        Service { ready: Ready::Log("up".into()), ..service("db", &until_term(0)) },
    ]));
    let before = enclave.host().await.until_ready().await;
    let pids = enclave.init.running();
    enclave.crash();
    assert_eq!(enclave.init.running(), pids);
    enclave.start_supervisor();
    let mut host = enclave.host().await;
    let after = host.until_ready().await;
    let why = "the supervisor was restarted after a crash".to_owned();
    let first = host.seen.first().unwrap();
    assert_eq!(
        (&first.state, first.services.len()),
        (&State::Degraded { why }, 2),
        "no host reads `booting`"
    );
    assert!(first.seq > before.seq);
    assert_eq!((before.supervisor_restarts, after.supervisor_restarts), (0, 1));
    assert!(after.seq > before.seq);
    assert_eq!(enclave.init.running(), pids);
    let reported: Vec<_> = after.services.iter().map(|s| (s.name.clone(), s.pid, s.restarts)).collect();
    assert_eq!(reported, [("web".into(), Some(pids["web"]), 0), ("db".into(), Some(pids["db"]), 0)]);
}

#[tokio::test]
async fn no_log_line_is_lost_in_crashes() {
    const LINES: usize = 30_000;
    let script = format!("i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); done; exec sleep 1000");
    let mut enclave = Enclave::boot(&manifest(vec![critical("web", &script)]));
    for mark in [1_000, 5_000, 9_000, 15_000] {
        enclave.logs(0, true).await.until("web", Stream::Stdout, &format!("\n{mark}\n")).await;
        enclave.crash();
        enclave.start_supervisor();
    }
    enclave.logs(0, true).await.until("web", Stream::Stdout, &format!("\n{}\n", LINES - 1)).await;
    let records = enclave.logs(0, false).await.rest().await;
    let numbers: Vec<u64> = records
        .iter()
        .map(|record| match record {
            Record::Output { seq, .. } => *seq,
            Record::Gap { .. } => panic!("{record:?}"),
        })
        .collect();
    assert!(numbers.iter().zip(0..).all(|(number, place)| *number == place), "numbers without gaps");
    let printed = output(&records, "web", Stream::Stdout);
    assert!(
        printed.lines().zip(0..).all(|(line, number)| line == number.to_string()),
        "every line, once, in order"
    );
    assert_eq!(printed.lines().count(), LINES);
}

#[tokio::test]
async fn an_exit_during_a_crash_is_reported_by_the_next_supervisor() {
    let gate = tempfile::tempdir().unwrap();
    let gate = gate.path().join("go");
    std::fs::create_dir_all(gate.parent().unwrap()).unwrap();
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done; echo last line; exit 6", gate.display());
    let mut enclave = Enclave::boot(&manifest(vec![critical("web", &script)]));
    enclave.host().await.until_ready().await;
    enclave.crash();
    std::fs::write(gate, "").unwrap();
    soon(async {
        while !enclave.init.running().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    enclave.start_supervisor();
    let log = enclave.logs(0, true).await;
    assert_eq!(enclave.host().await.final_state().await, State::Exited { service: "web".into(), code: 6 });
    assert_eq!(output(&log.rest().await, "web", Stream::Stdout), "last line\n");
}

#[tokio::test]
async fn a_stop_continues_after_a_crash() {
    let web = Service {
        stop_timeout_ms: 200,
        ..critical("web", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    };
    let mut enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    host.until_ready().await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "up").await;
    assert_eq!(host.request(Request::Stop).await, Reply::Done);
    host.until(|s| s.services[0].phase == Phase::Stopping).await;
    enclave.crash();
    enclave.start_supervisor();
    let state = enclave.host().await.final_state().await;
    assert!(matches!(state, State::Signaled { signal: 9, .. }), "{state:?}");
    soon(enclave.init.powered_off()).await;
}

#[tokio::test]
async fn restart_counts_survive_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("if [ -e {0} ]; then exec sleep 1000; fi; touch {0}; exit 3", mark.display());
    let web = Service { restart: restart(Policy::OnFailure), ..critical("web", &script) };
    let mut enclave = Enclave::boot(&manifest(vec![web]));
    enclave.host().await.until(|s| s.state == State::Ready && s.services[0].restarts == 1).await;
    enclave.crash();
    enclave.start_supervisor();
    let status = enclave.host().await.until_ready().await;
    assert_eq!(status.services[0].restarts, 1);
}

#[tokio::test]
async fn a_final_state_is_reported_again_after_a_crash() {
    let mut enclave = Enclave::boot(&manifest(vec![critical("web", "exit 7")]));
    let state = State::Exited { service: "web".into(), code: 7 };
    enclave.host().await.until(|s| s.state == state).await;
    enclave.crash();
    enclave.start_supervisor();
    assert_eq!(enclave.host().await.final_state().await, state);
    assert_eq!(soon(enclave.init.powered_off()).await, state);
    assert_eq!(enclave.supervisor_ended(), Ok(()));
}

#[tokio::test]
async fn without_a_supervisor_no_process_can_take_its_sockets_and_notifications_wait() {
    let web = Service { ready: Ready::Notify, ..critical("web", "exec sleep 1000") };
    let mut enclave = Enclave::boot(&manifest(vec![web]));
    enclave.host().await.until(|s| s.services.first().is_some_and(|w| w.pid.is_some())).await;
    for _ in 0..2 {
        enclave.crash();
        assert!(!enclave.notify_address_is_free());
        enclave.start_supervisor();
        enclave.host().await.until(|s| s.services.first().is_some_and(|w| w.pid.is_some())).await;
    }
    enclave.crash();
    enclave.notify("web", "READY=1");
    enclave.start_supervisor();
    enclave.host().await.until_ready().await;
}

#[tokio::test]
async fn a_notification_after_a_crash_is_received() {
    let web = Service { ready: Ready::Notify, ..critical("web", "exec sleep 1000") };
    let mut enclave = Enclave::boot(&manifest(vec![web]));
    enclave.host().await.until(|s| s.services.first().is_some_and(|w| w.pid.is_some())).await;
    enclave.crash();
    enclave.start_supervisor();
    let mut host = enclave.host().await;
    host.until(|s| s.state == State::Starting || matches!(s.state, State::Degraded { .. })).await;
    enclave.notify("web", "READY=1");
    host.until_ready().await;
}
