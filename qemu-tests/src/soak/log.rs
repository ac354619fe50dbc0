//! The enclave's log, read from start to end as `host-sleeve logs --follow` prints it.
//!
//! Invariant: a missing record is an error, and so is a duplicate: each service's lines are a checked sequence.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::VICTIMS;
use super::sequence::Sequence;
use crate::Lab;
use crate::scenario::Failure;

/// What was received.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// The lines of each service that prints.
    pub(super) sequences: BTreeMap<String, Sequence>,
    /// Records that the log reports as lost.
    pub(super) lost: u64,
}

/// The reader.
#[derive(Debug)]
pub(super) struct Log {
    child: Child,
    reader: JoinHandle<Received>,
    wrong: Arc<AtomicBool>,
}

impl Log {
    /// Reads from the log's start until the enclave has terminated.
    pub(super) fn follow(lab: &Lab) -> Result<Self, Failure> {
        let mut command = lab.sleeve(&["logs", "web", "--follow", "--json"]).into_command();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::failed("logs has no stdout"))?;
        let wrong = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&wrong);
        let reader = thread::spawn(move || Received::read(stdout, &shared));
        Ok(Self { child, reader, wrong })
    }

    /// Whether an error was found already.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    /// The complete log, once the enclave has terminated.
    pub(super) fn end(mut self) -> Result<Received, Failure> {
        let mut received =
            self.reader.join().map_err(|_| Failure::failed("the reader of the log panicked"))?;
        self.child.wait()?;
        for name in VICTIMS {
            received.sequences.entry(name.to_owned()).or_default().close();
        }
        Ok(received)
    }
}

impl Received {
    fn read(from: impl Read, wrong: &AtomicBool) -> Self {
        let mut received = Self::default();
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            received.take(&serde_json::from_str(&line).unwrap_or_default());
            if received.lost > 0
                || received.sequences.values().any(|sequence| !sequence.deviations.is_empty())
            {
                wrong.store(true, Ordering::Relaxed);
            }
        }
        received
    }

    fn take(&mut self, record: &Value) {
        let text = |key| record.get(key).and_then(Value::as_str).unwrap_or_default();
        self.lost = self.lost.saturating_add(record.get("lost").and_then(Value::as_u64).unwrap_or_default());
        if text("stream") == "stdout" && VICTIMS.contains(&text("service")) {
            self.sequences.entry(text("service").to_owned()).or_default().take(text("text").as_bytes());
        }
    }
}
