//! What a dead sleeve may have left of a machine: its processes.
//!
//! Its law: the kernel ends them with the sleeve, so there should be none; those that are found anyway are ended as what the
//! record says they are. They were another process's children, so how they ended is not known.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time;

use crate::backends::contract::{Ending, Remains};
use crate::error::Result;
use crate::state::handle::Handle;
use crate::state::process::{ProcessId, boot_id};
use crate::transport::Pending;

/// The pause between two looks whether a process has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// What finds a machine of QEMU again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts {
    /// The boot of the host in which its processes run; earlier programs did not record it.
    #[serde(default)]
    boot: Option<String>,
    /// The processes that make it up, by name.
    #[serde(default)]
    processes: Vec<(String, ProcessId)>,
}

impl Parts {
    /// These processes, which run now.
    pub(super) fn now(processes: Vec<(String, ProcessId)>) -> Self {
        Self { boot: boot_id(), processes }
    }
}

/// Processes that run without their sleeve.
#[derive(Debug)]
struct Left(Vec<ProcessId>);

/// Finds those that still run.
pub(super) fn find(handle: &Handle) -> Result<Option<Box<dyn Remains>>> {
    let parts: Parts = handle.parts()?;
    let another_boot = parts.boot.zip(boot_id()).is_some_and(|(then, now)| then != now);
    let all = parts.processes.into_iter().map(|(_, process)| process);
    let running: Vec<ProcessId> = all.filter(|process| !another_boot && process.exists()).collect();
    let left: Option<Box<dyn Remains>> =
        if running.is_empty() { None } else { Some(Box::new(Left(running))) };
    Ok(left)
}

impl Remains for Left {
    fn ended(&mut self) -> Pending<'_, Ending> {
        Box::pin(async move {
            while self.0.iter().any(|process| process.exists()) {
                time::sleep(PAUSE).await;
            }
            Ending::Unknown
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
