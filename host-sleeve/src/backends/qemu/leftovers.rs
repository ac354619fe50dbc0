//! What a dead sleeve may have left of its machine: processes.
//!
//! Invariant: the kernel kills them together with the sleeve, so there should be none; any that are found are identified by the
//! record and killed. They are children of another process, so how they exited is unknown.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time;

use crate::backends::contract::{Machine, MachineExit};
use crate::error::Result;
use crate::state::handle::Handle;
use crate::state::process::{ProcessId, boot_id};
use crate::transport::Pending;

/// The pause between two checks whether a process has exited.
const PAUSE: Duration = Duration::from_millis(10);

/// The handle of a machine of QEMU.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts {
    /// The boot of the host in which its processes run. Absent in earlier versions.
    #[serde(default)]
    boot: Option<String>,
    /// The processes that make it up, by name.
    #[serde(default)]
    processes: Vec<(String, ProcessId)>,
}

impl Parts {
    /// The handle of these running processes.
    pub(super) fn now(processes: Vec<(String, ProcessId)>) -> Self {
        Self { boot: boot_id(), processes }
    }
}

/// Processes that have outlived their sleeve.
#[derive(Debug)]
struct Leftovers(Vec<ProcessId>);

/// Finds those that are still running.
pub(super) fn find(handle: &Handle) -> Result<Option<Box<dyn Machine>>> {
    let parts: Parts = handle.parts()?;
    let another_boot = parts.boot.zip(boot_id()).is_some_and(|(then, now)| then != now);
    let all = parts.processes.into_iter().map(|(_, process)| process);
    let running: Vec<ProcessId> = all.filter(|process| !another_boot && process.exists()).collect();
    let left: Option<Box<dyn Machine>> =
        if running.is_empty() { None } else { Some(Box::new(Leftovers(running))) };
    Ok(left)
}

impl Machine for Leftovers {
    fn ended(&mut self) -> Pending<'_, MachineExit> {
        Box::pin(async move {
            while self.0.iter().any(|process| process.exists()) {
                time::sleep(PAUSE).await;
            }
            MachineExit::Unknown
        })
    }

    fn kill(&mut self) {
        for process in &self.0 {
            process.kill();
        }
    }

    fn destroy(&mut self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.kill();
            self.ended().await;
        })
    }
}
