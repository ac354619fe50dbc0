//! QEMU on this host.
//!
//! Invariant: a machine consists of QEMU and, if the host's kernel has no vhost-vsock, a vhost-user device; both die with the
//! sleeve. KVM is used if a trial boot has shown that it works, else TCG, and the record states which and why.

mod accel;
mod argv;
mod attached;
mod boot;
mod children;
mod counter;
mod found;
mod kvm;
mod leftovers;
mod limits;
mod listening;
pub(crate) mod nitro;
mod options;
mod probe;
mod qmp;
mod ramdisk_limit;
mod running;
mod trial;
mod version;
mod vsock;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use cloister_image::measure::NitroPcrs;
use cloister_manifest::Platform;
use cloister_sys::tsc::Meter;

use crate::app::Source;
use crate::error::{ErrorContext, Result};
use crate::state::EnclaveDir;
use crate::state::handle::Handle;
use crate::transport::{Kernel, Pending, Transport};

use super::contract::{Backend, Deployment, Machine, MachineLimits, Plan};
use super::finding::Finding;
use super::options::{Chosen, Offer};

use accel::{AccelChoice, accel_name, choose_accel};
use argv::{Accel, MachineType, Spec, Vsock};
use boot::Boot;
use children::Program;
use found::find;
use limits::{LIMITS, max_memory};
use qmp::Qmp;
use ramdisk_limit::max_ramdisk;
use running::Running;
use vsock::{claim_cid, find_vsock, free_cid, hybrid, start_vsock};

/// The backend's name.
pub(crate) const NAME: &str = "qemu";

/// Its command line options.
pub(crate) const OFFERS: &[Offer] = &[options::MACHINE, options::ACCEL];

/// The backend.
#[derive(Debug)]
struct Qemu {
    machine: MachineType,
    accel: AccelChoice,
}

/// The backend with these options.
pub(crate) fn open(chosen: &Chosen) -> Result<Box<dyn Backend>> {
    options::check(NAME, OFFERS, chosen)?;
    Ok(Box::new(Qemu { machine: options::machine(chosen)?, accel: options::accel(chosen)? }))
}

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        NAME
    }

    /// A plain virtual machine.
    fn platform(&self) -> Platform {
        Platform::Virtual
    }

    fn accepts(&self, source: &Source) -> Result<()> {
        source.artifact().map(drop)
    }

    fn max_ramdisk(&self, kernel: u64) -> u64 {
        max_ramdisk(kernel)
    }

    fn max_memory(&self) -> u64 {
        max_memory()
    }

    fn limits(&self) -> MachineLimits {
        LIMITS
    }

    fn probe(&self) -> Pending<'_, Vec<Finding>> {
        Box::pin(probe::all())
    }

    /// It has no security module.
    fn measure<'a>(&'a self, _plan: &'a Plan) -> Pending<'a, Result<Option<NitroPcrs>>> {
        Box::pin(async { Ok(None) })
    }

    fn reattach<'a>(&'a self, handle: &'a Handle) -> Pending<'a, Result<Option<Box<dyn Machine>>>> {
        Box::pin(async move { leftovers::find(handle) })
    }

    fn deploy<'a>(
        &'a self,
        plan: &'a Plan,
        directory: &'a EnclaveDir,
    ) -> Pending<'a, Result<Box<dyn Deployment>>> {
        Box::pin(async move {
            let clock = Meter::start();
            let qemu = find().await?;
            let vsock = find_vsock()?;
            let boot = Boot::prepare(plan.source.artifact()?).await?;
            let (accel, why) = choose_accel(self.accel, &qemu, &boot.kernel, &boot.kernel_digest).await?;
            let (cid, vsock_device, claimed) = match vsock {
                Some(program) => {
                    let cid = free_cid()?;
                    (cid, Some(start_vsock(&program, cid, &directory.dir().path()).await?), None)
                }
                None => claim_cid().map(|(cid, device)| (cid, None, Some(device)))?,
            };
            let spec = Spec {
                name: directory.name(),
                machine: self.machine,
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
                Some(device) => Arc::new(hybrid(device, directory)),
                None => Arc::new(Kernel::new(cid)),
            };
            let booted =
                boot.parts(&plan.cmdline).context(|| "cannot keep the enclave image open".to_owned())?;
            let fds = boot.into_fds().into_iter().chain(claimed).collect();
            let running = Program::start("QEMU", &qemu.path, argv, &directory.dir().path(), fds)?;
            let qmp = Qmp::listen(directory.dir().clone(), argv::QMP_SOCKET);
            let running = Running {
                backend: NAME,
                qemu: running,
                vsock: vsock_device,
                qmp,
                transport,
                cid,
                kind,
                why,
                booted: Some(booted),
            };
            let deployment: Box<dyn Deployment> = Box::new(running);
            Ok(deployment)
        })
    }
}

/// The measured command line, and under TCG the counter's frequency.
fn cmdline(measured: &str, accel: Accel, tsc_khz: Option<u32>) -> String {
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("{measured} {}", counter::arguments(khz)),
        _ => measured.to_owned(),
    }
}

fn kind(spec: &Spec<'_>) -> String {
    let machine = match spec.machine {
        MachineType::Microvm => "microvm",
        MachineType::Q35 => "q35",
    };
    format!("{machine}, {}", accel_name(spec.accel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_under_tcg_gets_its_counters_frequency() {
        assert_eq!(cmdline("quiet", Accel::Tcg, Some(2_400_000)), "quiet tsc_early_khz=2400000 lpj=9600000");
        assert_eq!(cmdline("quiet", Accel::Tcg, None), "quiet");
        assert_eq!(cmdline("quiet", Accel::Kvm, Some(2_400_000)), "quiet");
    }
}
