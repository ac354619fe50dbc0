//! The enclave's log, read all along as `host-sleeve logs --follow` prints it.
//!
//! Its law: a record that is missing is a fault, and so is one too many: each service has its account.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::VICTIMS;
use super::account::Account;
use crate::Lab;
use crate::story::Failure;

/// What was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The account of each service that talks.
    pub(super) accounts: BTreeMap<String, Account>,
    /// Records that the log says are missing.
    pub(super) lost: u64,
}

/// The reader.
#[derive(Debug)]
pub(super) struct Log {
    child: Child,
    reader: JoinHandle<Said>,
    wrong: Arc<AtomicBool>,
}

impl Log {
    /// Reads from the log's beginning until the enclave has ended.
    pub(super) fn follow(lab: &Lab) -> Result<Self, Failure> {
        let mut command = lab.sleeve(&["logs", "web", "--follow", "--json"]).into_command();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::broken("logs has no stdout"))?;
        let wrong = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&wrong);
        let reader = thread::spawn(move || Said::read(stdout, &told));
        Ok(Self { child, reader, wrong })
    }

    /// Whether something does not add up already.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    /// All of it, once the enclave has ended.
    pub(super) fn end(mut self) -> Result<Said, Failure> {
        let mut said = self.reader.join().map_err(|_| Failure::broken("the reader of the log broke off"))?;
        self.child.wait()?;
        for name in VICTIMS {
            said.accounts.entry(name.to_owned()).or_default().close();
        }
        Ok(said)
    }
}

impl Said {
    fn read(from: impl Read, wrong: &AtomicBool) -> Self {
        let mut said = Self::default();
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            said.take(&serde_json::from_str(&line).unwrap_or_default());
            if said.lost > 0 || said.accounts.values().any(|account| !account.faults.is_empty()) {
                wrong.store(true, Ordering::Relaxed);
            }
        }
        said
    }

    fn take(&mut self, record: &Value) {
        let text = |key| record.get(key).and_then(Value::as_str).unwrap_or_default();
        self.lost = self.lost.saturating_add(record.get("lost").and_then(Value::as_u64).unwrap_or_default());
        if text("stream") == "stdout" && VICTIMS.contains(&text("service")) {
            self.accounts.entry(text("service").to_owned()).or_default().take(text("text").as_bytes());
        }
    }
}
