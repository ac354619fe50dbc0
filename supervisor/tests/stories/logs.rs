//! Tests of the log: floods, slow readers, unusual bytes.

use cloister_manifest::model::{Logs, Service};
use cloister_wire::control::{Reply, Request, State};
use cloister_wire::logs::{Record, Stream};
use tokio::net::UnixStream;

use crate::enclave::Enclave;
use crate::host::{output, refused};
use crate::manifest::{critical, manifest, service};

#[tokio::test]
async fn an_unread_flood_ends_and_missing_records_are_counted() {
    let flood = "echo first; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo last; exit 0";
    let enclave = Enclave::boot(&manifest(vec![critical("web", flood)]));
    let mut host = enclave.host().await;
    let end = host.until(|s| s.state.is_final()).await.state;
    assert_eq!(end, State::Exited { service: "web".into(), code: 0 });
    let records = enclave.logs(0, false).await.rest().await;
    let mut next = 0;
    for record in &records {
        let (first, count) = match record {
            Record::Output { seq, .. } => (*seq, 1),
            Record::Gap { first, count } => (*first, *count),
        };
        assert_eq!(first, next, "every number is sent or announced as missing");
        next = first + count;
    }
    assert!(records.iter().any(|r| matches!(r, Record::Gap { .. })));
    assert!(output(&records, "web", Stream::Stdout).ends_with("x\nlast\n"));
}

#[tokio::test]
async fn a_flood_of_one_service_erases_no_line_of_another() {
    let quiet = service("quiet", "echo I was here; exec sleep 1000");
    let flood =
        Service { after: vec!["quiet".into()], ..critical("web", "head -c 20000000 /dev/zero; exit 0") };
    let enclave = Enclave::boot(&manifest(vec![quiet, flood]));
    enclave.host().await.until(|s| s.state.is_final()).await;
    let records = enclave.logs(0, false).await.rest().await;
    assert_eq!(output(&records, "quiet", Stream::Stdout), "I was here\n");
}

#[tokio::test]
async fn short_lines_of_one_service_erase_no_line_of_another() {
    let quiet = service("quiet", "echo I was here; echo and here >&2; exec sleep 1000");
    // One write per line: each may become a record of its own.
    let fast = "head -c 1200000 /dev/zero | tr '\\0' x | dd bs=6 2>/dev/null; exit 0";
    let fast = Service { after: vec!["quiet".into()], ..critical("web", fast) };
    let mut enclave = Enclave::boot(&manifest(vec![quiet, fast]));
    enclave.host().await.until(|s| s.state.is_final()).await;
    for _ in 0..2 {
        let records = enclave.logs(0, false).await.rest().await;
        assert_eq!(output(&records, "quiet", Stream::Stdout), "I was here\n");
        assert_eq!(output(&records, "quiet", Stream::Stderr), "and here\n");
        enclave.crash();
        enclave.start_supervisor();
    }
}

#[tokio::test]
async fn messages_about_one_service_erase_no_messages_about_others() {
    let busy = service("busy", "exec sleep 1000");
    let mut enclave = Enclave::boot(&manifest(vec![service("quiet", "exec sleep 1000"), busy]));
    enclave.host().await.until_ready().await;
    let mut admin = enclave.local().await;
    // Each is a line of the log. The service continues, as it does without the signal.
    let signal = Request::Signal { service: "busy".into(), signal: 18 };
    for _ in 0..9_000 {
        assert_eq!(admin.request(signal.clone()).await, Reply::Done);
    }
    for _ in 0..2 {
        let records = enclave.logs(0, false).await.rest().await;
        let log = output(&records, "quiet", Stream::Supervisor);
        assert!(log.starts_with("ready after "), "of the quiet one: {log:?}");
        let log = output(&records, "busy", Stream::Supervisor);
        assert!(log.ends_with("signal 18 sent, requested by service admin\n"), "of the busy one: {log:?}");
        enclave.crash();
        enclave.start_supervisor();
    }
}

#[tokio::test]
async fn bytes_arrive_as_they_were_written() {
    let web = critical("web", "printf '\\377\\000\\r\\n'; printf '\\200' >&2; exit 0");
    let enclave = Enclave::boot(&manifest(vec![web]));
    let log = enclave.logs(0, true).await;
    enclave.host().await.final_state().await;
    let records = log.rest().await;
    let bytes = |wanted| -> Vec<u8> {
        let of = |r: &Record| match r {
            Record::Output { stream, bytes, .. } if *stream == wanted => bytes.clone(),
            _ => vec![],
        };
        records.iter().flat_map(of).collect()
    };
    assert_eq!(bytes(Stream::Stdout), b"\xff\x00\r\n");
    assert_eq!(bytes(Stream::Stderr), b"\x80");
}

#[tokio::test]
async fn a_reader_resumes_where_it_stopped() {
    let enclave = Enclave::boot(&manifest(vec![critical("web", "echo one; echo two >&2; exec sleep 1000")]));
    let mut first = enclave.logs(0, true).await;
    first.until("web", Stream::Stderr, "two").await;
    drop(first);
    let all = enclave.logs(0, false).await.rest().await;
    let Some(Record::Output { seq, .. }) = all.last() else { panic!("{all:?}") };
    let rest = enclave.logs(*seq, false).await.rest().await;
    assert_eq!(rest, all[all.len() - 1..]);
}

#[tokio::test]
async fn dropped_output_is_drained_and_never_sent() {
    let web =
        Service { logs: Logs::Drop, ..critical("web", "head -c 10000000 /dev/zero; echo secret; exit 0") };
    let enclave = Enclave::boot(&manifest(vec![web]));
    let log = enclave.logs(0, true).await;
    let end = enclave.host().await.final_state().await;
    assert_eq!(end, State::Exited { service: "web".into(), code: 0 });
    assert_eq!(output(&log.rest().await, "web", Stream::Stdout), "");
}

#[tokio::test]
async fn readers_of_one_service_block_neither_the_host_nor_another_service() {
    let mut manifest =
        manifest(vec![critical("web", "echo here; exec sleep 1000"), service("db", "exec sleep 1000")]);
    manifest.control.services = vec!["web".into(), "db".into()];
    let enclave = Enclave::boot(&manifest);
    enclave.logs(0, true).await.until("web", Stream::Stdout, "here").await;
    // As many as there are places in total, none of which reads anything.
    let mut idle = vec![];
    for _ in 0..16 {
        enclave.init.join_cgroup(std::process::id(), "web");
        idle.push(UnixStream::connect(enclave.path("local-logs")).await.unwrap());
    }
    refused(idle.last_mut().unwrap()).await;
    enclave.logs(0, true).await.until("web", Stream::Stdout, "here").await;
    enclave.local_logs("db").await.until("web", Stream::Stdout, "here").await;
}

#[tokio::test]
async fn a_stuck_reader_blocks_no_other_reader() {
    let gate = tempfile::tempdir().unwrap();
    let gate = gate.path().join("go");
    std::fs::create_dir_all(gate.parent().unwrap()).unwrap();
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; head -c 30000000 /dev/zero; echo end; exec sleep 1000",
        gate.display()
    );
    let enclave = Enclave::boot(&manifest(vec![critical("web", &script)]));
    let mut stuck = enclave.logs(0, true).await;
    stuck.until("web", Stream::Supervisor, "ready").await;
    std::fs::write(gate, "").unwrap();
    enclave.logs(0, true).await.until("web", Stream::Stdout, "end\n").await;
    let mut gaps = 0;
    loop {
        match stuck.next().await.unwrap() {
            Record::Gap { count, .. } => gaps += count,
            Record::Output { bytes, .. } if bytes.ends_with(b"end\n") => break,
            Record::Output { .. } => {}
        }
    }
    assert!(gaps > 0, "the reader is informed of the gap");
}
