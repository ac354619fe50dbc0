//! A machine that runs: QEMU, its vsock device, and what they say.
//!
//! Its law: both end together, and the end says what happened in words.

use std::sync::Arc;

use cloister_image::measure::NitroPcrs;

use crate::state::record;
use crate::transport::{Pending, Transport};

use super::super::contract::{Console, Deployment, Ending};
use super::children::Program;
use super::qmp::Qmp;
use super::vsock::{VSOCK_DEVICE, VSOCK_PROGRAM};

/// A running machine.
#[derive(Debug)]
pub(super) struct Running {
    /// QEMU.
    pub(super) qemu: Program,
    /// The device, where the kernel is not it.
    pub(super) vsock: Option<Program>,
    /// What QEMU says of the machine.
    pub(super) qmp: Qmp,
    /// How its ports are reached.
    pub(super) transport: Arc<dyn Transport>,
    /// Its vsock address.
    pub(super) cid: u32,
    /// What it is, in words.
    pub(super) kind: String,
    /// Why it is not something better.
    pub(super) why: Option<String>,
    /// What its security module should report.
    pub(super) pcrs: Option<NitroPcrs>,
}

impl Deployment for Running {
    fn facts(&self) -> record::Machine {
        let programs = [("qemu", Some(&self.qemu)), ("vsock", self.vsock.as_ref())];
        let running =
            programs.into_iter().filter_map(|(part, program)| Some((part.to_owned(), program?.id()?)));
        let vsock = if self.vsock.is_some() { VSOCK_PROGRAM } else { VSOCK_DEVICE };
        record::Machine {
            kind: self.kind.clone(),
            why: self.why.clone(),
            cid: self.cid,
            vsock: vsock.to_owned(),
            processes: running.collect(),
            pcrs: self.pcrs,
        }
    }

    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    fn console(&mut self) -> Option<Console> {
        let stdout: Console = Box::new(self.qemu.stdout()?);
        Some(stdout)
    }

    fn ended(&mut self) -> Pending<'_, Ending> {
        Box::pin(async move {
            let device = async {
                match self.vsock.as_mut() {
                    Some(vsock) => (vsock.ended().await.1, vsock.said().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                (code, how) = self.qemu.ended() => self.after_qemu(code, how).await,
                (how, said) = device => Ending { powered_off: false, how, said },
                state = self.qmp.halted() => {
                    let how = format!("QEMU stopped the machine ({state})");
                    Ending { powered_off: false, how, said: None }
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
    async fn after_qemu(&mut self, code: Option<i32>, how: String) -> Ending {
        let cause = self.qmp.cause().await;
        let orderly = matches!(cause.as_deref(), None | Some("guest-reset" | "guest-shutdown"));
        let how = match &cause {
            Some(cause) if !orderly => format!("{how} ({cause})"),
            _ => how,
        };
        Ending { powered_off: code == Some(0) && orderly, how, said: self.qemu.said().await }
    }
}
