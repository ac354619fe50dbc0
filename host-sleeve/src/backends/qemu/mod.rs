//! QEMU on this host.
//!
//! Its law: a machine is QEMU and, where the host's kernel has no vhost-vsock, a vhost-user device; both die with the
//! sleeve. KVM is used when it has proved itself, else the CPUs are translated, and the record says which and why.

mod accel;
mod argv;
mod attached;
pub(crate) mod boot;
mod children;
mod counter;
mod found;
pub(crate) mod kvm;
mod listening;
pub(crate) mod nitro;
mod qmp;
mod room;
mod running;
mod trial;
pub(crate) mod version;
mod vsock;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use cloister_sys::tsc::Meter;

use crate::error::Result;
use crate::state::Folder;
use crate::transport::{Kernel, Pending, Transport};

use super::contract::{Backend, Deployment, Plan};

pub(crate) use accel::AccelChoice;
use accel::{accel_word, choose_accel};
pub(crate) use argv::Machine;
use argv::{Accel, Spec, Vsock};
use boot::Boot;
use children::Program;
pub(crate) use found::{Found, find};
use qmp::Qmp;
use room::room;
use running::Running;
pub(crate) use vsock::{VSOCK_DEVICE, find_vsock, try_vsock};
use vsock::{claim_cid, free_cid, hybrid, start_vsock};

/// The backend's name.
pub(crate) const NAME: &str = "qemu";

/// The backend.
#[derive(Debug)]
pub(crate) struct Qemu;

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_machines(&self) -> bool {
        true
    }

    fn room(&self, kernel: u64) -> u64 {
        room(kernel)
    }

    fn deploy<'a>(&'a self, plan: &'a Plan, folder: &'a Folder) -> Pending<'a, Result<Box<dyn Deployment>>> {
        Box::pin(async move {
            let clock = Meter::start();
            let qemu = find()?;
            let vsock = find_vsock()?;
            let boot = Boot::prepare(plan.source.artifact()?).await?;
            let (accel, why) = choose_accel(plan.accel, &qemu, &boot.kernel, &boot.kernel_digest).await?;
            let (cid, vsock_device, claimed) = match vsock {
                Some(program) => {
                    let cid = free_cid()?;
                    (cid, Some(start_vsock(&program, cid, &folder.dir().path()).await?), None)
                }
                None => claim_cid().map(|(cid, device)| (cid, None, Some(device)))?,
            };
            let spec = Spec {
                name: folder.name(),
                machine: plan.machine.unwrap_or(Machine::Microvm),
                accel,
                vsock: claimed
                    .as_ref()
                    .map_or(Vsock::User, |device| Vsock::Kernel { device: device.as_raw_fd() }),
                cid,
                cpus: plan.cpus,
                memory: plan.memory,
                kernel: &boot.kernel.path(),
                initrd: &boot.ramdisks.path(),
                cmdline: &cmdline(&plan.cmdline, accel, clock.khz()),
            };
            let argv = argv::argv(&spec);
            let kind = kind(&spec);
            let transport: Arc<dyn Transport> = match &vsock_device {
                Some(device) => Arc::new(hybrid(device, folder)),
                None => Arc::new(Kernel::new(cid)),
            };
            let fds = boot.into_fds().into_iter().chain(claimed).collect();
            let running = Program::start("QEMU", &qemu.path, argv, &folder.dir().path(), fds)?;
            let qmp = Qmp::listen(folder.dir().clone(), argv::QMP_SOCKET);
            let running =
                Running { qemu: running, vsock: vsock_device, qmp, transport, cid, kind, why, pcrs: None };
            let deployment: Box<dyn Deployment> = Box::new(running);
            Ok(deployment)
        })
    }
}

/// The measured command line, and under translation the counter's speed.
fn cmdline(measured: &str, accel: Accel, tsc_khz: Option<u32>) -> String {
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("{measured} {}", counter::words(khz)),
        _ => measured.to_owned(),
    }
}

fn kind(spec: &Spec<'_>) -> String {
    let machine = match spec.machine {
        Machine::Microvm => "microvm",
        Machine::Q35 => "q35",
    };
    format!("{machine}, {}", accel_word(spec.accel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_translated_guest_is_told_how_fast_its_counter_runs() {
        assert_eq!(cmdline("quiet", Accel::Tcg, Some(2_400_000)), "quiet tsc_early_khz=2400000 lpj=9600000");
        assert_eq!(cmdline("quiet", Accel::Tcg, None), "quiet");
        assert_eq!(cmdline("quiet", Accel::Kvm, Some(2_400_000)), "quiet");
    }
}
