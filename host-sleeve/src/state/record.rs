//! The record of one enclave: `state.json`.
//!
//! Its law: it is replaced as a whole or not at all, and what it claims to be running is checked. A record of this version
//! is read whatever a later program adds to it; one of another version is refused by its number.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_image::measure::NitroPcrs;
use cloister_wire::control::{State, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::values::{Publish, show_duration, signal_name};

use crate::error::{Error, Result};

use super::process::{ProcessId, boot_id};

/// The version of this format.
pub(crate) const VERSION: u32 = 1;

/// Everything that is known about one enclave from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The enclave's name.
    pub(crate) name: String,
    /// What it was launched from.
    pub(crate) image: Image,
    /// The backend's name.
    pub(crate) backend: String,
    /// What it runs on, once it does.
    pub(crate) machine: Option<Machine>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// The ports as they are listened on.
    pub(crate) publish: Vec<Publish>,
    /// Where metrics are served, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// When it was launched, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// The host's time, in milliseconds since 1970, at which the enclave's own clock read zero.
    pub(crate) booted_ms: Option<u64>,
    /// When it became ready first, in milliseconds since 1970.
    pub(crate) ready_ms: Option<u64>,
    /// The sleeve.
    pub(crate) sleeve: Option<ProcessId>,
    /// The boot of the host that it was launched in; earlier programs did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<String>,
    /// How long the manifest lets a stop take, in milliseconds.
    pub(crate) stop_timeout_ms: u64,
    /// What the enclave said last.
    pub(crate) status: Option<Status>,
    /// Since when it has not answered, in milliseconds since 1970, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) silent_since_ms: Option<u64>,
    /// How it ended, once it has.
    pub(crate) end: Option<End>,
}

/// What an enclave was launched from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Its path, absolute.
    pub(crate) path: PathBuf,
    /// Its digest, `sha256:…`.
    pub(crate) digest: String,
    /// The manifest's name.
    pub(crate) name: String,
}

/// What an enclave runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// In words: `microvm, tcg`.
    pub(crate) kind: String,
    /// Why it is not something better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Its vsock address.
    pub(crate) cid: u32,
    /// How its vsock is reached.
    pub(crate) vsock: String,
    /// The processes that make it up, by name.
    pub(crate) processes: Vec<(String, ProcessId)>,
    /// What its security module should report, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pcrs: Option<NitroPcrs>,
}

/// How an enclave ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// The exit code of `host-sleeve run`.
    pub(crate) code: u8,
    /// What happened.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// What happened at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The enclave told its own end.
    Told {
        /// Its final state.
        #[serde(rename = "final")]
        state: State,
    },
    /// It was killed on request.
    Killed {
        /// Whose request, for people.
        why: String,
    },
    /// A limit of time passed.
    TimedOut {
        /// Which, for people.
        why: String,
    },
    /// It ended without telling, or could not be launched.
    Failed {
        /// What is known, for people.
        why: String,
    },
}

/// A record together with what the host says.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The record as it was left.
    pub(crate) record: Record,
    /// Whether its sleeve lives.
    pub(crate) alive: bool,
}

/// Why a record is not read: another program wrote it.
#[derive(Debug, thiserror::Error)]
#[error("its record has version {found}, and this host-sleeve reads version {VERSION}")]
pub(crate) struct OtherVersion {
    found: u64,
}

/// What a record of any version says about processes, as far as it says it in terms that are known here.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// The process that the sleeve is or was.
    pub(super) named: Option<ProcessId>,
    /// Whether the enclave has ended.
    pub(super) ended: bool,
    /// The parts of the machine that run.
    pub(super) machine: Vec<ProcessId>,
}

impl Traces {
    /// The traces in the bytes of a record; none where they make no sense.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if !same_boot(value.get("boot").and_then(Value::as_str)) {
            return Self::default();
        }
        let ended = value.get("end").is_some_and(|end| !end.is_null());
        let process = |value: &Value| ProcessId::deserialize(value).ok();
        let parts = value.pointer("/machine/processes").and_then(Value::as_array);
        let parts = parts.into_iter().flatten().filter_map(|part| process(part.get(1)?));
        let machine = parts.filter(|process| process.exists()).collect();
        Self { named: value.get("sleeve").and_then(process), ended, machine }
    }

    /// The sleeve, if it runs and the enclave has not ended.
    pub(super) fn sleeve(&self) -> Option<ProcessId> {
        self.process().filter(|_| !self.ended)
    }

    /// Whether the sleeve has ended, or is about to: the last of its threads closes its files.
    pub(super) fn is_dying(&self) -> bool {
        self.named.is_some_and(|process| !process.exists())
    }

    /// The process of the sleeve, if it runs. It may outlive its enclave, while it prints.
    pub(super) fn process(&self) -> Option<ProcessId> {
        self.named.filter(|process| process.exists())
    }
}

/// Whether something that was recorded in `boot` can still be running.
fn same_boot(boot: Option<&str>) -> bool {
    // Where one of the two does not say, start times have to do.
    boot.zip(boot_id().as_deref()).is_none_or(|(then, now)| then == now)
}

impl Record {
    /// Reads the bytes of a record, which is that of the enclave `name`.
    pub(super) fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let damaged = |error| {
            Error::host(format!("the record of {name} is damaged"))
                .because(error)
                .hint(format!("`host-sleeve rm {name}` forgets it"))
        };
        let mut value: Value = serde_json::from_slice(bytes).map_err(damaged)?;
        let found = value.get("version").and_then(Value::as_u64);
        if let Some(found) = found.filter(|found| *found != u64::from(VERSION)) {
            return Err(Error::operator(format!("{name} was launched by another version of host-sleeve"))
                .because(OtherVersion { found })
                .hint("use the host-sleeve that launched it, or one that is newer"));
        }
        let first = match serde_json::from_value(value.clone()) {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        // What the enclave said is in the words of the wire, which other programs may have more of. The rest is ours.
        forget_unknown(&mut value);
        serde_json::from_value(value).map_err(|_| damaged(first))
    }

    /// Whether a process that it names still runs.
    pub(crate) fn runs(&self, process: ProcessId) -> bool {
        same_boot(self.boot.as_deref()) && process.exists()
    }
}

/// Takes a status and a final state out of a record that this program has no words for.
fn forget_unknown(record: &mut Value) {
    if let Some(status) = record.get_mut("status")
        && Status::deserialize(&*status).is_err()
    {
        *status = Value::Null;
    }
    if let Some(end) = record.get_mut("end").filter(|end| !end.is_null())
        && End::deserialize(&*end).is_err()
    {
        let (code, at_ms) = (end.get("code").cloned(), end.get("at_ms").cloned());
        let why = "it ended in a way that only a newer host-sleeve has words for";
        *end = json!({"code": code, "at_ms": at_ms, "outcome": "failed", "why": why});
    }
}

impl Seen {
    /// The state in a few words, as `ps` shows it.
    pub(crate) fn words(&self) -> String {
        if let Some(end) = &self.record.end {
            return end.words();
        }
        if !self.alive {
            let killed = same_boot(self.record.boot.as_deref());
            let why = if killed { "killed: the sleeve died" } else { "lost: the host was restarted" };
            return why.to_owned();
        }
        if let Some(since) = self.record.silent_since_ms {
            let silent = show_duration(Duration::from_millis(now_ms().saturating_sub(since)));
            let state = self.record.status.as_ref().map(|status| &status.state);
            return format!("{}, no answer for {silent}", Self::state_word(state));
        }
        match self.record.status.as_ref().map(|status| &status.state) {
            Some(State::Degraded { why }) => format!("degraded: {why}"),
            Some(state) if state.is_final() => format!("ending: {}", final_words(state)),
            state => Self::state_word(state).to_owned(),
        }
    }

    /// The state of an enclave that runs, in one word.
    pub(crate) const fn state_word(state: Option<&State>) -> &'static str {
        match state {
            None => "launching",
            Some(State::Booting) => "booting",
            Some(State::Starting) => "starting",
            Some(State::Ready) => "ready",
            Some(State::Degraded { .. }) => "degraded",
            Some(State::Stopping { .. }) => "stopping",
            Some(State::Exited { .. } | State::Signaled { .. } | State::Fatal { .. }) => "ending",
        }
    }

    /// Processes of a dead sleeve that live on. There should be none.
    pub(crate) fn orphans(&self) -> Vec<(String, ProcessId)> {
        if self.alive {
            return Vec::new();
        }
        let processes = self.record.machine.iter().flat_map(|machine| machine.processes.iter());
        processes.filter(|(_, process)| self.record.runs(*process)).cloned().collect()
    }

    /// How many services are ready, of how many.
    pub(crate) fn services(&self) -> String {
        use cloister_wire::control::Phase;
        let Some(status) = self.record.status.as_ref().filter(|_| self.alive) else {
            return "-".to_owned();
        };
        let fine = status.services.iter().filter(|s| matches!(s.phase, Phase::Ready | Phase::Done)).count();
        format!("{fine}/{}", status.services.len())
    }
}

impl End {
    /// The end in a few words.
    pub(crate) fn words(&self) -> String {
        match &self.outcome {
            Outcome::Told { state } => final_words(state),
            Outcome::Killed { why } => format!("killed: {why}"),
            Outcome::TimedOut { why } => format!("timed out: {why}"),
            Outcome::Failed { why } => format!("failed: {why}"),
        }
    }
}

fn final_words(state: &State) -> String {
    use cloister_wire::control::Cause;
    match state {
        State::Exited { code, .. } => format!("exited ({code})"),
        State::Signaled { signal, cause: Cause::Sent, .. } => signal_name(*signal),
        State::Signaled { signal, cause: Cause::OutOfMemory, .. } => {
            format!("{}, out of memory", signal_name(*signal))
        }
        State::Signaled { signal, cause: Cause::Seccomp(call), .. } => {
            let call = call.as_deref().unwrap_or("a system call");
            format!("{}, {call} is not allowed", signal_name(*signal))
        }
        State::Fatal { stage, error } => format!("fatal: {stage}: {error}"),
        _ => "not ended".to_owned(),
    }
}

/// The host's time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cloister_wire::control::Cause;

    /// A record of an enclave that was just launched.
    pub(crate) fn launched(name: &str) -> Record {
        Record {
            version: VERSION,
            name: name.into(),
            image: Image { path: "/app.cloister".into(), digest: "sha256:00".into(), name: "app".into() },
            backend: "qemu".into(),
            machine: None,
            cpus: 2,
            memory: 512 << 20,
            publish: Vec::new(),
            metrics: None,
            created_ms: 1,
            booted_ms: None,
            ready_ms: None,
            sleeve: None,
            boot: None,
            stop_timeout_ms: 1000,
            status: None,
            silent_since_ms: None,
            end: None,
        }
    }

    fn ended(outcome: Outcome) -> String {
        let record = Record { end: Some(End { code: 1, outcome, at_ms: 2 }), ..launched("web") };
        Seen { record, alive: false }.words()
    }

    #[test]
    fn an_ended_enclave_is_told_by_its_end() {
        let state = State::Exited { service: "web".into(), code: 3 };
        assert_eq!(ended(Outcome::Told { state }), "exited (3)");
        let state = State::Signaled { service: "web".into(), signal: 9, cause: Cause::OutOfMemory };
        assert_eq!(ended(Outcome::Told { state }), "SIGKILL, out of memory");
        assert_eq!(ended(Outcome::Failed { why: "QEMU was killed".into() }), "failed: QEMU was killed");
    }

    #[test]
    fn a_record_without_a_sleeve_is_not_believed_to_run() {
        let seen = |alive| Seen { record: launched("web"), alive }.words();
        assert_eq!(seen(true), "launching");
        assert_eq!(seen(false), "killed: the sleeve died");
    }

    #[test]
    fn an_enclave_of_an_earlier_boot_is_not_taken_for_a_killed_one() {
        let seen = |boot: Option<String>| {
            let machine = Machine {
                kind: "microvm".into(),
                why: None,
                cid: 3,
                vsock: "x".into(),
                processes: vec![("qemu".into(), ProcessId::own().unwrap())],
                pcrs: None,
            };
            Seen { record: Record { boot, machine: Some(machine), ..launched("web") }, alive: false }
        };
        let earlier = seen(Some("an earlier boot".into()));
        assert_eq!(earlier.words(), "lost: the host was restarted");
        assert!(earlier.orphans().is_empty(), "the number is another process's now");
        let now = seen(boot_id());
        assert_eq!((now.words().as_str(), now.orphans().len()), ("killed: the sleeve died", 1));
        assert_eq!(seen(None).orphans().len(), 1, "earlier programs did not record the boot");
    }

    /// What the first release wrote for a running enclave.
    const FIRST_RELEASE: &str = r#"{"version":1,"name":"web","image":{"path":"/app.cloister","digest":"sha256:00","name":"app"},
        "backend":"qemu","machine":{"kind":"microvm, tcg","cid":1100,"vsock":"vhost-device-vsock",
        "processes":[["qemu",{"pid":70,"start":9}],["vsock",{"pid":69,"start":8}]]},"cpus":2,"memory":536870912,
        "publish":[{"listen":"127.0.0.1:8080","ingress":80}],"created_ms":5,"booted_ms":6,"ready_ms":7,
        "sleeve":{"pid":68,"start":7},"stop_timeout_ms":1000,"status":{"seq":2,"state":"ready","platform":"virtual",
        "uptime_ms":10,"supervisor_restarts":0,"boot":[],"services":[],"ingress":{"accepted":0,"open":0,"refused":0,
        "bytes_in":0,"bytes_out":0},"registers":[]},"end":null}"#;

    #[test]
    fn a_record_of_the_first_release_is_read() {
        let record = Record::from_bytes(FIRST_RELEASE.as_bytes(), "web").unwrap();
        assert_eq!((record.boot, record.sleeve), (None, Some(ProcessId { pid: 68, start: 7 })));
        assert_eq!(record.status.unwrap().state, State::Ready);
    }

    #[test]
    fn what_a_later_program_adds_or_renames_does_not_hide_an_enclave() {
        let mut value: Value = serde_json::from_str(FIRST_RELEASE).unwrap();
        value["colour"] = json!("blue");
        value["status"]["state"] = json!("hibernating");
        value["end"] = json!({"code": 9, "outcome": "told", "final": {"state": "evaporated"}, "at_ms": 8});
        let record = Record::from_bytes(value.to_string().as_bytes(), "web").unwrap();
        assert_eq!(record.status, None);
        let end = record.end.unwrap();
        assert!(end.code == 9 && end.words().contains("newer host-sleeve"), "{end:?}");
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_its_number_and_still_names_its_processes() {
        let own = ProcessId::own().unwrap();
        let text = json!({"version": 7, "sleeve": own, "boot": boot_id(), "machine": {"processes": [["qemu", own, 5]]}}).to_string();
        let error = Record::from_bytes(text.as_bytes(), "web").unwrap_err();
        let reasons = error.reasons().concat();
        assert!(reasons.contains("version 7") && reasons.contains("reads version 1"), "{reasons}");
        assert_eq!(Traces::of(text.as_bytes()).sleeve(), Some(own));
        assert!(Traces::of(b"{").sleeve().is_none());
    }

    #[test]
    fn an_end_read_back_is_the_end_written() {
        let state = State::Exited { service: "web".into(), code: 3 };
        let end = End { code: 3, outcome: Outcome::Told { state }, at_ms: 4 };
        let text = serde_json::to_string(&end).unwrap();
        assert_eq!(
            text,
            r#"{"code":3,"outcome":"told","final":{"state":"exited","service":"web","code":3},"at_ms":4}"#
        );
        assert_eq!(serde_json::from_str::<End>(&text).unwrap(), end);
    }
}
