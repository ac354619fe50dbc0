//! The record of one enclave: `state.json`.
//!
//! Invariant: it is replaced as a whole or not at all, and processes that it names are checked before they count as running. A
//! record of this version is readable regardless of what a later program has added to it; one of another version is refused by
//! its number.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_image::measure::NitroPcrs;
use cloister_wire::control::{State, Status};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::values::{Publish, show_duration};

use crate::error::{Error, Result};

use super::end::{End, final_summary};
use super::handle::Handle;
use super::process::{ProcessId, boot_id};
use super::verified::Verified;

/// The version of this format.
pub(crate) const VERSION: u32 = 1;

/// Everything known about one enclave on the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "the fields of a record")]
pub(crate) struct Record {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The enclave's name.
    pub(crate) name: String,
    /// What it was launched from.
    pub(crate) image: Image,
    /// The backend's name.
    pub(crate) backend: String,
    /// What it runs on, once it is running.
    pub(crate) machine: Option<Platform>,
    /// Lets the backend find what it has created; recorded before it creates anything. Absent in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handle: Option<Handle>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// The published ports, with the actual addresses.
    pub(crate) publish: Vec<Publish>,
    /// The address at which metrics are served, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// When it was launched, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// The host's time, in milliseconds since 1970, at which the enclave's own clock read zero.
    pub(crate) booted_ms: Option<u64>,
    /// When it first became ready, in milliseconds since 1970.
    pub(crate) ready_ms: Option<u64>,
    /// Whether its sleeve has verified it. Absent in earlier versions.
    #[serde(default)]
    pub(crate) verified: Verified,
    /// The port of its attestation server. Absent in earlier versions, and without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attestation_port: Option<u16>,
    /// The sleeve's process.
    pub(crate) sleeve: Option<ProcessId>,
    /// The boot of the host in which it was launched. Absent in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<String>,
    /// The manifest's limit for a stop, in milliseconds.
    pub(crate) stop_timeout_ms: u64,
    /// The last status that the enclave sent.
    pub(crate) status: Option<Status>,
    /// Since when it has not responded, in milliseconds since 1970. `None` while it responds.
    /// Earlier versions wrote it as `silent_since_ms`.
    #[serde(default, alias = "silent_since_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) unresponsive_since_ms: Option<u64>,
    /// How it ended, once it has.
    pub(crate) end: Option<End>,
}

/// What an enclave was launched from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "the fields of an image")]
pub(crate) struct Image {
    /// Its path, absolute.
    pub(crate) path: PathBuf,
    /// Its digest, `sha256:…`.
    pub(crate) digest: String,
    /// The manifest's name.
    pub(crate) name: String,
}

/// What an enclave runs on, human-readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "the fields of a machine")]
pub(crate) struct Platform {
    /// A short description: `microvm, tcg`.
    pub(crate) kind: String,
    /// Why it is not something faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Its vsock address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cid: Option<u32>,
    /// How its vsock is reached, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vsock: Option<String>,
    /// The processes of this host that make it up, by name.
    #[serde(default)]
    pub(crate) processes: Vec<(String, ProcessId)>,
    /// What its security module should report, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pcrs: Option<NitroPcrs>,
}

/// A record, and whether its sleeve is alive.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The record as last written.
    pub(crate) record: Record,
    /// Whether its sleeve is alive.
    pub(crate) alive: bool,
}

/// A record that another version of this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("its record has version {found}, and this host-sleeve reads version {VERSION}")]
pub(crate) struct OtherVersion {
    found: u64,
}

/// What a record of any version, also a truncated one, states about what may be running, as far as this version can interpret it.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// The process of the sleeve, running or not.
    pub(super) named: Option<ProcessId>,
    /// Whether the enclave has ended.
    pub(super) ended: bool,
    /// The machine's processes that are running.
    pub(super) machine: Vec<ProcessId>,
    /// The backend's handle, or at least the backend's name.
    pub(super) handle: Option<Handle>,
}

impl Traces {
    /// The traces in the bytes of a record; empty if these cannot be interpreted.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let value = Value::Object(readable_fields(bytes));
        let ended = value.get("end").is_some_and(|end| !end.is_null());
        let whole = value.get("handle").and_then(|handle| Handle::deserialize(handle).ok());
        let name = || value.pointer("/handle/backend").or_else(|| value.get("backend"))?.as_str();
        let handle = whole.or_else(|| name().map(Handle::creating));
        if !same_boot(value.get("boot").and_then(Value::as_str)) {
            return Self { ended, handle, ..Self::default() };
        }
        let process = |value: &Value| ProcessId::deserialize(value).ok();
        let parts = value.pointer("/machine/processes").and_then(Value::as_array);
        let parts = parts.into_iter().flatten().filter_map(|part| process(part.get(1)?));
        let machine = parts.filter(|process| process.exists()).collect();
        Self { named: value.get("sleeve").and_then(process), ended, machine, handle }
    }

    /// The sleeve, if it is running and the enclave has not ended.
    pub(super) fn sleeve(&self) -> Option<ProcessId> {
        self.process().filter(|_| !self.ended)
    }

    /// Whether the sleeve has exited or is exiting: its files are closed when its last thread exits.
    pub(super) fn is_dying(&self) -> bool {
        self.named.is_some_and(|process| !process.exists())
    }

    /// The sleeve's process, if it is running. It may outlive its enclave while it prints.
    pub(super) fn process(&self) -> Option<ProcessId> {
        self.named.filter(|process| process.exists())
    }
}

/// The fields of a JSON object that are before the first error.
fn readable_fields(bytes: &[u8]) -> Map<String, Value> {
    struct Fields<'a>(&'a mut Map<String, Value>);
    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            while let Some((name, value)) = map.next_entry()? {
                self.0.insert(name, value);
            }
            Ok(())
        }
    }
    let mut fields = Map::new();
    // The error of a truncated record is reported by `Record::from_bytes`.
    drop(serde_json::Deserializer::from_slice(bytes).deserialize_map(Fields(&mut fields)));
    fields
}

/// Whether a process that was recorded during `boot` can still be running.
fn same_boot(boot: Option<&str>) -> bool {
    // If one of the two is unknown, the start times alone decide.
    boot.zip(boot_id().as_deref()).is_none_or(|(then, now)| then == now)
}

impl Record {
    /// Parses the record of the enclave `name`. That is the name of its directory, by which commands find it.
    pub(super) fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let damaged = |error| {
            Error::host(format!("the record of {name} is damaged"))
                .because(error)
                .hint(format!("`host-sleeve rm {name}` deletes it"))
        };
        let mut value: Value = serde_json::from_slice(bytes).map_err(damaged)?;
        if !value.is_object() {
            return Err(damaged(serde_json::Error::custom("it is not a JSON object")));
        }
        let found = value.get("version").and_then(Value::as_u64);
        if let Some(found) = found.filter(|found| *found != u64::from(VERSION)) {
            return Err(Error::operator(format!("{name} was launched by another version of host-sleeve"))
                .because(OtherVersion { found })
                .hint("use the host-sleeve that launched it, or a newer one"));
        }
        let first = match serde_json::from_value(value.clone()) {
            Ok(record) => return Ok(Self { name: name.to_owned(), ..record }),
            Err(error) => error,
        };
        // The enclave's status uses the wire protocol's types, to which other versions may add values. The rest is ours.
        remove_unknown(&mut value);
        let record: Self = serde_json::from_value(value).map_err(|_| damaged(first))?;
        Ok(Self { name: name.to_owned(), ..record })
    }

    /// The backend's handle. Records without one were written when QEMU was the only backend: its processes are the handle.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let earlier = || {
            let processes = &self.machine.as_ref()?.processes;
            Some(Handle::created(&self.backend, &json!({"boot": self.boot, "processes": processes})))
        };
        self.handle.clone().or_else(earlier)
    }

    /// Whether a process that it names is still running.
    pub(crate) fn runs(&self, process: ProcessId) -> bool {
        same_boot(self.boot.as_deref()) && process.exists()
    }
}

/// Replaces a status and a final state that this version cannot interpret.
fn remove_unknown(record: &mut Value) {
    if let Some(status) = record.get_mut("status")
        && Status::deserialize(&*status).is_err()
    {
        *status = Value::Null;
    }
    if let Some(end) = record.get_mut("end").filter(|end| !end.is_null())
        && End::deserialize(&*end).is_err()
    {
        let (code, at_ms) = (end.get("code").cloned(), end.get("at_ms").cloned());
        let why = "it ended in a way that only a newer host-sleeve can describe";
        *end = json!({"code": code, "at_ms": at_ms, "outcome": "failed", "why": why});
    }
}

impl Seen {
    /// A short description of the state, as `ps` shows it.
    pub(crate) fn summary(&self) -> String {
        if let Some(end) = &self.record.end {
            return end.summary();
        }
        if !self.alive {
            let killed = same_boot(self.record.boot.as_deref());
            let why = if killed { "killed: the sleeve died" } else { "lost: the host was restarted" };
            return why.to_owned();
        }
        if let Some(since) = self.record.unresponsive_since_ms {
            let time = show_duration(Duration::from_millis(now_ms().saturating_sub(since)));
            let state = self.record.status.as_ref().map(|status| &status.state);
            return format!("{}, no answer for {time}", Self::state_word(state));
        }
        match self.record.status.as_ref().map(|status| &status.state) {
            Some(State::Degraded { why }) => format!("degraded: {why}"),
            Some(state) if state.is_final() => format!("ending: {}", final_summary(state)),
            state => Self::state_word(state).to_owned(),
        }
    }

    /// The state of a running enclave, in one word.
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

    /// Processes that have outlived their sleeve. There should be none.
    pub(crate) fn orphans(&self) -> Vec<(String, ProcessId)> {
        if self.alive {
            return Vec::new();
        }
        let processes = self.record.machine.iter().flat_map(|machine| machine.processes.iter());
        processes.filter(|(_, process)| self.record.runs(*process)).cloned().collect()
    }

    /// How many of its services are ready or done, such as `2/3`.
    pub(crate) fn services(&self) -> String {
        use cloister_wire::control::Phase;
        let Some(status) = self.record.status.as_ref().filter(|_| self.alive) else {
            return "-".to_owned();
        };
        let ready = status.services.iter().filter(|s| matches!(s.phase, Phase::Ready | Phase::Done)).count();
        format!("{ready}/{}", status.services.len())
    }
}

/// The host's time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
