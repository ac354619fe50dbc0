//! A running machine: QEMU, its vsock device, and their output.
//!
//! Invariant: both are terminated together, and the reason is reported as text.

use std::sync::Arc;

use crate::state::handle::Handle;
use crate::state::process::ProcessId;
use crate::state::record::Platform;
use crate::transport::{Pending, Transport};

use super::super::contract::{BootedParts, Console, Deployment, Machine, MachineExit};
use super::children::Program;
use super::leftovers::Parts;
use super::qmp::Qmp;
use super::vsock::{VSOCK_DEVICE, VSOCK_PROGRAM};

/// A running machine.
#[derive(Debug)]
pub(super) struct Running {
    /// The name of its backend.
    pub(super) backend: &'static str,
    /// QEMU.
    pub(super) qemu: Program,
    /// The program that implements the vsock device, unless the kernel does.
    pub(super) vsock: Option<Program>,
    /// Receives QEMU's events about the machine.
    pub(super) qmp: Qmp,
    /// The transport to its ports.
    pub(super) transport: Arc<dyn Transport>,
    /// Its vsock address.
    pub(super) cid: u32,
    /// A short description: `microvm, tcg`.
    pub(super) kind: String,
    /// Why it is not something faster.
    pub(super) why: Option<String>,
    /// What it was booted from, unless it has a security module.
    pub(super) booted: Option<BootedParts>,
}

impl Deployment for Running {
    fn handle(&self) -> Handle {
        Handle::created(self.backend, &Parts::now(self.processes()))
    }

    fn platform(&self) -> Platform {
        let vsock = if self.vsock.is_some() { VSOCK_PROGRAM } else { VSOCK_DEVICE };
        Platform {
            kind: self.kind.clone(),
            why: self.why.clone(),
            cid: Some(self.cid),
            vsock: Some(vsock.to_owned()),
            processes: self.processes(),
            pcrs: None,
        }
    }

    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    fn booted(&self) -> Option<BootedParts> {
        self.booted.clone()
    }

    fn console(&mut self) -> Option<Console> {
        let stdout: Console = Box::new(self.qemu.stdout()?);
        Some(stdout)
    }
}

impl Machine for Running {
    fn ended(&mut self) -> Pending<'_, MachineExit> {
        Box::pin(async move {
            let device = async {
                match self.vsock.as_mut() {
                    Some(vsock) => (vsock.ended().await.1, vsock.last_output().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                (code, how) = self.qemu.ended() => self.after_qemu(code, how).await,
                (how, output) = device => MachineExit::Failed { how, output },
                state = self.qmp.halted() => {
                    let how = format!("QEMU stopped the machine ({state})");
                    MachineExit::Failed { how, output: None }
                }
            }
        })
    }

    fn kill(&mut self) {
        self.qemu.start_kill();
    }

    fn destroy(&mut self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.qemu.kill().await;
            if let Some(vsock) = self.vsock.as_mut() {
                vsock.kill().await;
            }
        })
    }
}

impl Running {
    /// The running programs, by name.
    fn processes(&self) -> Vec<(String, ProcessId)> {
        let programs = [("qemu", Some(&self.qemu)), ("vsock", self.vsock.as_ref())];
        programs.into_iter().filter_map(|(part, program)| Some((part.to_owned(), program?.id()?))).collect()
    }

    async fn after_qemu(&mut self, code: Option<i32>, how: String) -> MachineExit {
        let cause = self.qmp.cause().await;
        let orderly = matches!(cause.as_deref(), None | Some("guest-reset" | "guest-shutdown"));
        let output = self.qemu.last_output().await;
        match cause {
            _ if code == Some(0) && orderly => MachineExit::PoweredOff { output },
            Some(cause) if !orderly => MachineExit::Failed { how: format!("{how} ({cause})"), output },
            _ => MachineExit::Failed { how, output },
        }
    }
}
