//! Tests of starts: order, readiness, jobs.

use cloister_manifest::model::{Ready, Service};
use cloister_wire::control::{Phase, Reply, Request, State, Status, Verb};
use cloister_wire::logs::Stream;

use crate::enclave::Enclave;
use crate::host::soon;
use crate::manifest::{critical, job, manifest, service, until_term};

fn phase(status: &Status, name: &str) -> Phase {
    status.services.iter().find(|s| s.name == name).unwrap().phase
}

#[tokio::test]
async fn a_service_starts_and_the_enclave_is_ready() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", &until_term(0))]));
    let mut host = enclave.host().await;
    let status = host.until_ready().await;
    assert_eq!(status.platform, "virtual");
    assert_eq!(status.services[0].pid, enclave.init.running().get("web").copied());
    let output = enclave.logs(0, true).await.until("web", Stream::Stdout, "up\n").await;
    assert_eq!(output, "up\n");
}

#[tokio::test]
async fn a_service_waits_for_the_job_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("migrated");
    let migrate = job("migrate", &format!("echo yes > {}", mark.display()));
    let web = Service {
        after: vec!["migrate".into()],
        ..critical("web", &format!("cat {}; exec sleep 1000", mark.display()))
    };
    let enclave = Enclave::boot(&manifest(vec![migrate, web]));
    let status = enclave.host().await.until_ready().await;
    assert_eq!(phase(&status, "migrate"), Phase::Done);
    enclave.logs(0, true).await.until("web", Stream::Stdout, "yes\n").await;
}

#[tokio::test]
async fn a_service_is_ready_when_its_log_contains_the_text() {
    let gate = tempfile::tempdir().unwrap();
    let gate = gate.path().join("go");
    let script = format!(
        "printf 'liste'; while [ ! -e {0} ]; do sleep 0.01; done; printf 'ning'; exec sleep 1000",
        gate.display()
    );
    std::fs::create_dir_all(gate.parent().unwrap()).unwrap();
    let web = Service { ready: Ready::Log("listening".into()), ..critical("web", &script) };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    host.until(|s| s.state == State::Starting && phase(s, "web") == Phase::Starting).await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "liste").await;
    std::fs::write(gate, "").unwrap();
    host.until_ready().await;
}

#[tokio::test]
async fn a_service_is_ready_when_its_file_exists() {
    let web = Service { ready: Ready::File("/run/up".into()), ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    host.until(|s| s.services.first().is_some_and(|web| web.pid.is_some())).await;
    std::fs::create_dir_all(enclave.path("root/run")).unwrap();
    std::fs::write(enclave.path("root/run/up"), "").unwrap();
    host.until_ready().await;
}

#[tokio::test]
async fn a_service_is_ready_when_it_notifies_and_reports_a_status_text() {
    let web = Service { ready: Ready::Notify, ..critical("web", "echo $NOTIFY_SOCKET; exec sleep 1000") };
    let other = Service { after: vec!["web".into()], ..service("other", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![web, other]));
    let mut host = enclave.host().await;
    host.until(|s| s.services.first().is_some_and(|web| web.pid.is_some())).await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "@cloister/notify\n").await;
    enclave.notify("other", "READY=1");
    enclave.notify("stranger", "READY=1");
    enclave.notify("web", "STATUS=serving 3 clients\nREADY=1\n");
    let status = host.until_ready().await;
    assert_eq!(status.services[0].text.as_deref(), Some("serving 3 clients"));
}

#[tokio::test]
async fn one_datagram_is_one_change() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", "exec sleep 1000")]));
    let mut host = enclave.host().await;
    let before = host.until_ready().await.seq;
    let lines: Vec<String> = (0..300).map(|n| format!("STATUS={n}\nWATCHDOG=1")).collect();
    enclave.notify("web", &lines.join("\n")[..4096]);
    let after = host.until(|s| s.services[0].text.is_some()).await;
    assert_eq!(after.seq, before + 1);
}

#[tokio::test]
async fn endless_notifications_are_read_at_a_limited_rate() {
    const SENT: u64 = 20_000;
    let web = Service { ready: Ready::Notify, ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    let before = host.until(|s| s.services.first().is_some_and(|web| web.pid.is_some())).await.seq;
    enclave.notify_all("web", (0..SENT).map(|n| format!("STATUS={n}")).chain(["READY=1".to_owned()]));
    let last = Some((SENT - 1).to_string());
    let after = host.until(|s| s.state == State::Ready && s.services[0].text == last).await;
    assert!(after.seq - before < SENT / 2, "{} changes", after.seq - before);
}

#[tokio::test]
async fn a_service_that_is_not_ready_in_time_is_stopped() {
    let web = Service {
        ready: Ready::Log("never".into()),
        start_timeout_ms: 50,
        ..critical("web", &until_term(4))
    };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut log = enclave.logs(0, true).await;
    let state = enclave.host().await.final_state().await;
    assert_eq!(state, State::Exited { service: "web".into(), code: 4 });
    log.until("web", Stream::Supervisor, "not ready within 50 ms").await;
}

#[tokio::test]
async fn a_service_that_requires_a_failed_job_never_runs() {
    let migrate = job("migrate", "exit 3");
    let web = Service { requires: vec!["migrate".into()], ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![migrate, web]));
    let mut host = enclave.host().await;
    let state = host.final_state().await;
    assert_eq!(state, State::Exited { service: "migrate".into(), code: 3 });
    assert_eq!(phase(host.seen.last().unwrap(), "web"), Phase::Failed);
    assert_eq!(host.seen.last().unwrap().services[1].last_exit, None);
}

#[tokio::test]
async fn services_that_do_not_depend_on_each_other_start_together() {
    let one = service("one", "exec sleep 1000");
    let two = Service { ready: Ready::Log("never".into()), ..service("two", "exec sleep 1000") };
    let three = service("three", "exec sleep 1000");
    let enclave = Enclave::boot(&manifest(vec![one, two, three]));
    let mut host = enclave.host().await;
    let ready = |s: &Status, name| s.services.len() == 3 && phase(s, name) == Phase::Ready;
    let status = host.until(|s| ready(s, "one") && ready(s, "three")).await;
    assert_eq!(phase(&status, "two"), Phase::Starting);
}

#[tokio::test]
async fn a_service_that_is_ready_before_init_reports_its_start_is_ready() {
    let web = Service { ready: Ready::Notify, ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut local = enclave.local().await;
    local.until(|s| s.services.first().is_some_and(|web| web.pid.is_some())).await;
    enclave.init.hold_back_starts();
    let restart = Request::Service { service: "web".into(), verb: Verb::Restart };
    assert_eq!(local.request(restart).await, Reply::Done);
    local.until(|s| s.services[0].restarts == 1).await;
    soon(async {
        while enclave.init.running().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    enclave.notify("web", "READY=1\nSTATUS=serving");
    let status = local.until(|s| s.services[0].text.as_deref() == Some("serving")).await;
    assert_eq!((status.services[0].phase, status.services[0].pid), (Phase::Starting, None));
    enclave.init.report_starts();
    local.until_ready().await;
}

#[tokio::test]
async fn a_service_with_a_check_is_not_ready_by_notification() {
    let web = Service { ready: Ready::File("/no/such/file".into()), ..critical("web", "exec sleep 1000") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let mut host = enclave.host().await;
    host.until(|s| s.services.first().is_some_and(|web| web.pid.is_some())).await;
    enclave.notify("web", "READY=1\nSTATUS=notified");
    let status = host.until(|s| s.services[0].text.as_deref() == Some("notified")).await;
    assert_eq!(status.services[0].phase, Phase::Starting);
}
