//! Records as they are written, and as older versions wrote them.

use super::*;
use crate::state::Outcome;
use cloister_wire::control::Cause;

/// A record of an enclave that was just launched.
pub(crate) fn launched(name: &str) -> Record {
    Record {
        version: VERSION,
        name: name.into(),
        image: Image { path: "/app.cloister".into(), digest: "sha256:00".into(), name: "app".into() },
        backend: "qemu".into(),
        machine: None,
        handle: None,
        cpus: 2,
        memory: 512 << 20,
        publish: Vec::new(),
        metrics: None,
        created_ms: 1,
        booted_ms: None,
        ready_ms: None,
        verified: Verified::No,
        attestation_port: None,
        sleeve: None,
        boot: None,
        stop_timeout_ms: 1000,
        status: None,
        unresponsive_since_ms: None,
        end: None,
    }
}

fn ended(outcome: Outcome) -> String {
    let record = Record { end: Some(End { code: 1, outcome, at_ms: 2 }), ..launched("web") };
    Seen { record, alive: false }.summary()
}

#[test]
fn an_ended_enclave_is_described_by_its_end() {
    let state = State::Exited { service: "web".into(), code: 3 };
    assert_eq!(ended(Outcome::Reported { state }), "exited (3)");
    let state = State::Signaled { service: "web".into(), signal: 9, cause: Cause::OutOfMemory };
    assert_eq!(ended(Outcome::Reported { state }), "SIGKILL, out of memory");
    assert_eq!(ended(Outcome::Failed { why: "QEMU was killed".into() }), "failed: QEMU was killed");
}

#[test]
fn an_enclave_without_a_sleeve_does_not_count_as_running() {
    let seen = |alive| Seen { record: launched("web"), alive }.summary();
    assert_eq!(seen(true), "launching");
    assert_eq!(seen(false), "killed: the sleeve died");
}

#[test]
fn an_enclave_of_an_earlier_boot_is_not_reported_as_killed() {
    let seen = |boot: Option<String>| {
        let machine = Platform {
            kind: "microvm".into(),
            why: None,
            cid: Some(3),
            vsock: Some("x".into()),
            processes: vec![("qemu".into(), ProcessId::own().unwrap())],
            pcrs: None,
        };
        Seen { record: Record { boot, machine: Some(machine), ..launched("web") }, alive: false }
    };
    let earlier = seen(Some("an earlier boot".into()));
    assert_eq!(earlier.summary(), "lost: the host was restarted");
    assert!(earlier.orphans().is_empty(), "the number belongs to another process now");
    let now = seen(boot_id());
    assert_eq!((now.summary().as_str(), now.orphans().len()), ("killed: the sleeve died", 1));
    assert_eq!(seen(None).orphans().len(), 1, "earlier versions did not record the boot");
}

/// A record that the first release wrote for a running enclave.
const FIRST_RELEASE: &str = r#"{"version":1,"name":"web","image":{"path":"/app.cloister","digest":"sha256:00","name":"app"},
    "backend":"qemu","machine":{"kind":"microvm, tcg","cid":1100,"vsock":"vhost-device-vsock",
    "processes":[["qemu",{"pid":70,"start":9}],["vsock",{"pid":69,"start":8}]]},"cpus":2,"memory":536870912,
    "publish":[{"listen":"127.0.0.1:8080","ingress":80}],"created_ms":5,"booted_ms":6,"ready_ms":7,
    "sleeve":{"pid":68,"start":7},"stop_timeout_ms":1000,"status":{"seq":2,"state":"ready","platform":"virtual",
    "uptime_ms":10,"supervisor_restarts":0,"boot":[],"services":[],"ingress":{"accepted":0,"open":0,"refused":0,
    "bytes_in":0,"bytes_out":0},"registers":[]},"end":null}"#;

#[test]
fn a_record_of_the_first_release_is_readable() {
    let record = Record::from_bytes(FIRST_RELEASE.as_bytes(), "web").unwrap();
    assert_eq!((record.boot, record.sleeve), (None, Some(ProcessId { pid: 68, start: 7 })));
    assert_eq!(record.status.unwrap().state, State::Ready);
}

#[test]
fn a_record_with_the_names_of_an_earlier_version_is_readable() {
    let mut value: Value = serde_json::from_str(FIRST_RELEASE).unwrap();
    value["silent_since_ms"] = json!(9);
    let state = json!({"state": "exited", "service": "web", "code": 3});
    value["end"] = json!({"code": 3, "outcome": "told", "final": state, "at_ms": 8});
    let record = Record::from_bytes(value.to_string().as_bytes(), "web").unwrap();
    assert_eq!(record.unresponsive_since_ms, Some(9));
    let state = State::Exited { service: "web".into(), code: 3 };
    assert_eq!(record.end.unwrap().outcome, Outcome::Reported { state });
}

#[test]
fn a_record_without_a_handle_finds_its_machine_by_its_processes() {
    let record = Record::from_bytes(FIRST_RELEASE.as_bytes(), "web").unwrap();
    assert_eq!(record.machine.as_ref().unwrap().cid, Some(1100));
    let handle = serde_json::to_value(record.handle().unwrap()).unwrap();
    let processes = json!([["qemu", {"pid": 70, "start": 9}], ["vsock", {"pid": 69, "start": 8}]]);
    assert_eq!(handle, json!({"backend": "qemu", "created": true, "boot": null, "processes": processes}));
    assert!(launched("web").handle().is_none(), "nothing was created");
}

#[test]
fn a_recorded_handle_is_read_back() {
    let record = Record { handle: Some(Handle::creating("cloud")), ..launched("web") };
    let again = Record::from_bytes(&serde_json::to_vec(&record).unwrap(), "web").unwrap();
    assert_eq!(again.handle(), Some(Handle::creating("cloud")));
}

#[test]
fn fields_and_values_of_a_later_version_do_not_hide_an_enclave() {
    let mut value: Value = serde_json::from_str(FIRST_RELEASE).unwrap();
    value["colour"] = json!("blue");
    value["status"]["state"] = json!("hibernating");
    value["end"] = json!({"code": 9, "outcome": "reported", "final": {"state": "evaporated"}, "at_ms": 8});
    let record = Record::from_bytes(value.to_string().as_bytes(), "web").unwrap();
    assert_eq!(record.status, None);
    let end = record.end.unwrap();
    assert!(end.code == 9 && end.summary().contains("newer host-sleeve"), "{end:?}");
}

#[test]
fn a_record_of_another_version_is_refused_by_its_number_and_still_names_its_processes() {
    let own = ProcessId::own().unwrap();
    let text =
        json!({"version": 7, "sleeve": own, "boot": boot_id(), "machine": {"processes": [["qemu", own, 5]]}})
            .to_string();
    let error = Record::from_bytes(text.as_bytes(), "web").unwrap_err();
    let reasons = error.reasons().concat();
    assert!(reasons.contains("version 7") && reasons.contains("reads version 1"), "{reasons}");
    assert_eq!(Traces::of(text.as_bytes()).sleeve(), Some(own));
    assert!(Traces::of(b"{").sleeve().is_none());
}

#[test]
fn an_end_read_back_is_the_end_written() {
    let state = State::Exited { service: "web".into(), code: 3 };
    let end = End { code: 3, outcome: Outcome::Reported { state }, at_ms: 4 };
    let text = serde_json::to_string(&end).unwrap();
    assert_eq!(
        text,
        r#"{"code":3,"outcome":"reported","final":{"state":"exited","service":"web","code":3},"at_ms":4}"#
    );
    assert_eq!(serde_json::from_str::<End>(&text).unwrap(), end);
}

#[test]
fn the_error_for_a_damaged_record_names_no_types_of_this_program() {
    for text in
        ["[]", "7", r#"{"version": 1, "name": "web", "image": []}"#, r#"{"version": 1, "image": "x"}"#]
    {
        let reasons = Record::from_bytes(text.as_bytes(), "web").unwrap_err().reasons().concat();
        assert!(!reasons.contains("struct") && !reasons.contains("Record"), "{reasons}");
    }
}
