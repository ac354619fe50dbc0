//! QEMU on this host.
//!
//! Its law: a machine is QEMU and, where the host's kernel has no vhost-vsock, a vhost-user device; both die with the
//! sleeve. KVM is used when it has proved itself, else the CPUs are translated, and the record says which and why.

mod argv;
mod attached;
pub(crate) mod boot;
mod children;
mod counter;
pub(crate) mod kvm;
mod listening;
pub(crate) mod nitro;
mod qmp;
mod running;
mod trial;
pub(crate) mod version;
mod vsock;

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use cloister_image::digest::Digest;
use cloister_sys::tsc::Meter;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Result};
use crate::install;
use crate::state::Folder;
use crate::transport::{Kernel, Transport};

use super::{Backend, Deployment, Pending, Plan};

pub(crate) use argv::Machine;
use argv::{Accel, Spec, Vsock};
use boot::{Boot, Nameless};
use children::Program;
use qmp::Qmp;
use running::Running;
use version::Version;
pub(crate) use vsock::{VSOCK_DEVICE, find_vsock, try_vsock};
use vsock::{claim_cid, free_cid, hybrid, start_vsock};

/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";

/// The backend's name.
pub(crate) const NAME: &str = "qemu";

/// The memory below 4 GiB of a machine with 2.75 GiB or more, where QEMU loads a ramdisk (`hw/i386/pc_q35.c`, `pc_q35_init`;
/// `hw/i386/microvm.c`, `microvm_memory_init`). With less memory it is larger, but an image that fills it would not boot in so
/// little. Seen with QEMU 7.2 and 8 GiB: the kernel reports a ramdisk that ends at 2 GiB, and one of 2,047 MiB is reset before
/// the kernel's first line.
const LOW_MEMORY: u64 = 2 << 30;

/// Where a bzImage unpacks itself (Documentation/arch/x86/boot.rst, `pref_address`). The ramdisk lies at the other end.
const KERNEL_AT: u64 = 16 << 20;

/// What QEMU keeps for tables above the ramdisk is 160 KiB (`hw/i386/x86.c`, `acpi_data_size`); in whole MiB.
const TABLES: u64 = 1 << 20;

/// The most bytes of ramdisk beside a kernel that takes `kernel` bytes, for every machine that QEMU makes.
const fn room(kernel: u64) -> u64 {
    LOW_MEMORY.saturating_sub(TABLES).saturating_sub(KERNEL_AT).saturating_sub(kernel)
}

/// The backend.
#[derive(Debug)]
pub(crate) struct Qemu;

/// How an operator wants the CPUs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccelChoice {
    /// KVM where it proves itself, else translation.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Translation.
    Tcg,
}

/// A QEMU that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: Version,
    /// The first line of what it prints about itself.
    pub(crate) line: String,
}

/// Looks for QEMU and asks for its version.
pub(crate) fn find() -> Result<Found> {
    let path = install::in_path(PROGRAM).ok_or_else(|| {
        Error::host(format!("{PROGRAM} is not installed")).hint("apt install qemu-system-x86")
    })?;
    at(path)
}

/// The QEMU in this file.
fn at(path: PathBuf) -> Result<Found> {
    let output = query(&path, &["--version"]);
    let output = output.doing(|| format!("cannot start {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    match Version::parse(&text) {
        Some(version) if version >= version::OLDEST => Ok(Found { path, version, line }),
        Some(version) => Err(Error::host(format!("{} is version {version}", path.display()))
            .hint(format!("{} or newer is needed", version::OLDEST))),
        None => Err(Error::host(format!("{} does not tell its version", path.display()))
            .hint("is it QEMU? `--version` should print `QEMU emulator version …`")),
    }
}

/// What `program` prints when it is asked with these arguments.
///
/// In a process group of its own: Ctrl-C goes to every process of the terminal's group, and a program that it ended would
/// be reported as the reason in place of Ctrl-C.
fn query(program: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).output()
}

/// How the CPUs run, and why not better.
async fn choose_accel(
    asked: AccelChoice,
    qemu: &Found,
    kernel: &Nameless,
    digest: &Digest,
) -> Result<(Accel, Option<String>)> {
    if asked == AccelChoice::Tcg {
        return Ok((Accel::Tcg, None));
    }
    let answer = kvm::ask(qemu, kernel, digest).await;
    match (answer.works, asked) {
        (true, _) => Ok((Accel::Kvm, None)),
        (false, AccelChoice::Kvm) => Err(Error::host(format!("KVM does not work here: {}", answer.why))
            .hint(
                answer
                    .fix
                    .unwrap_or("leave out --accel kvm; `host-sleeve doctor` tries again and tells more"),
            )),
        (false, _) => Ok((Accel::Tcg, Some(answer.why))),
    }
}

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

const fn accel_word(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
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
