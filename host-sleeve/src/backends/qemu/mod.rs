//! QEMU on this host.
//!
//! Its law: a machine is QEMU and, where the host's kernel has no vhost-vsock, a vhost-user device; both die with the
//! sleeve. KVM is used when it has proved itself, else the CPUs are translated, and the record says which and why.

mod argv;
mod attached;
pub(crate) mod boot;
mod children;
pub(crate) mod kvm;
mod listening;
mod qmp;
pub(crate) mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloister_sys::tsc::Meter;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::error::{Doing, Error, Result};
use crate::install;
use crate::state::{Folder, record};
use crate::transport::{Hybrid, Kernel, Transport};

use super::{Backend, Console, Deployment, Ending, Pending, Plan};

pub(crate) use argv::Machine;
use argv::{Accel, Spec, Vsock};
use boot::Boot;
use children::Program;
use qmp::Qmp;
use version::Version;

/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The QEMU that emulates this host's architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";

/// The vhost-user vsock device.
pub(crate) const VSOCK_PROGRAM: &str = "vhost-device-vsock";

/// The kernel's vhost-vsock.
pub(crate) const VSOCK_DEVICE: &str = "/dev/vhost-vsock";

/// Where the vhost-user device serves the host, in the enclave's folder.
const VSOCK_SOCKET: &str = "vsock.sock";

/// How long the vsock device may take to listen: it starts within milliseconds on an idle host.
const VSOCK_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two looks for the vsock device's socket.
const VSOCK_PAUSE: Duration = Duration::from_millis(2);

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
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
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

/// How vsock can be made here: by the kernel, else by the vhost-user device, whose file is the answer.
pub(crate) fn find_vsock() -> Result<Option<PathBuf>> {
    if fs::File::options().read(true).write(true).open(VSOCK_DEVICE).is_ok() {
        return Ok(None);
    }
    install::program(VSOCK_PROGRAM).map(Some).ok_or_else(|| {
        Error::host(format!("neither {VSOCK_DEVICE} can be opened nor {VSOCK_PROGRAM} found"))
            .hint("`modprobe vhost_vsock` as root, or `cargo install --locked vhost-device-vsock`")
    })
}

async fn choose_accel(asked: AccelChoice, qemu: &Found, boot: &Boot) -> Result<(Accel, Option<String>)> {
    if asked == AccelChoice::Tcg {
        return Ok((Accel::Tcg, None));
    }
    let answer = kvm::ask(qemu, &boot.kernel, &boot.kernel_digest).await;
    match (answer.works, asked) {
        (true, _) => Ok((Accel::Kvm, None)),
        (false, AccelChoice::Kvm) => Err(Error::host(format!("KVM does not work here: {}", answer.why))
            .hint("leave out --accel kvm; `host-sleeve doctor` tells more")),
        (false, _) => Ok((Accel::Tcg, Some(answer.why))),
    }
}

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn deploy<'a>(&'a self, plan: &'a Plan, folder: &'a Folder) -> Pending<'a, Result<Box<dyn Deployment>>> {
        Box::pin(async move {
            let clock = Meter::start();
            let qemu = find()?;
            let vsock = find_vsock()?;
            let boot = Boot::prepare(&plan.artifact).await?;
            let (accel, why) = choose_accel(plan.accel, &qemu, &boot).await?;
            let cid = free_cid();
            let vsock_device = match vsock {
                Some(program) => Some(start_vsock(&program, cid, folder).await?),
                None => None,
            };
            let spec = Spec {
                name: folder.name(),
                machine: plan.machine,
                accel,
                vsock: if vsock_device.is_some() { Vsock::User } else { Vsock::Kernel },
                cid,
                cpus: plan.cpus,
                memory: plan.memory,
                kernel: &boot.kernel.path(),
                initrd: &boot.ramdisks.path(),
                cmdline: &cmdline(&plan.cmdline, accel, clock.khz()),
            };
            let argv = argv::argv(&spec);
            let kind = kind(&spec);
            // Before QEMU is there to hand over anything.
            let transport: Arc<dyn Transport> = match &vsock_device {
                Some(device) => Arc::new(hybrid(device, folder)),
                None => Arc::new(Kernel::new(cid)),
            };
            let running = Program::start("QEMU", &qemu.path, argv, folder.path(), boot.into_fds())?;
            let qmp = Qmp::listen(folder.path().to_owned(), argv::QMP_SOCKET);
            let running = Running { qemu: running, vsock: vsock_device, qmp, transport, cid, kind, why };
            let deployment: Box<dyn Deployment> = Box::new(running);
            Ok(deployment)
        })
    }
}

/// The measured command line, and under translation the counter's speed: the guest's counter is then the host's, and its
/// kernel cannot measure it against an emulated timer on a busy machine. Without it the guest falls back to a clock of
/// 4 ms ticks.
fn cmdline(measured: &str, accel: Accel, tsc_khz: Option<u32>) -> String {
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("{measured} tsc_early_khz={khz}"),
        _ => measured.to_owned(),
    }
}

fn kind(spec: &Spec<'_>) -> String {
    let machine = match spec.machine {
        Machine::Microvm => "microvm",
        Machine::Q35 => "q35",
    };
    let accel = match spec.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    };
    format!("{machine}, {accel}")
}

/// A vsock address that no other enclave of this host is likely to have. With the kernel's vhost-vsock a clash makes
/// QEMU refuse to start; behind vhost-user it means nothing.
fn free_cid() -> u32 {
    // Unique while the process lives; the top bits keep clear of the small numbers people choose by hand.
    0x4000_0000 | (std::process::id() & 0x3fff_ffff)
}

async fn start_vsock(program: &Path, cid: u32, folder: &Folder) -> Result<Program> {
    let device = format!("guest-cid={cid},socket={},uds-path={VSOCK_SOCKET}", argv::VHOST_SOCKET);
    let mut running = Program::start(VSOCK_PROGRAM, program, ["--vm", &device], folder.path(), Vec::new())?;
    let deadline = Instant::now() + VSOCK_LIMIT;
    let sockets = [argv::VHOST_SOCKET, VSOCK_SOCKET];
    while !running.id().is_some_and(|process| listening::listens(process.pid, &sockets)) {
        if running.has_ended() || Instant::now() > deadline {
            running.kill().await;
            let said = running.said().await.unwrap_or_else(|| "it said nothing".to_owned());
            return Err(Error::host(format!("{} does not start", program.display()))
                .because(std::io::Error::other(said))
                .hint("`host-sleeve doctor` checks it"));
        }
        time::sleep(VSOCK_PAUSE).await;
    }
    Ok(running)
}

/// The way through a device that listens and has no guest yet.
fn hybrid(device: &Program, folder: &Folder) -> Hybrid {
    let (tell, ready) = watch::channel(false);
    let pid = device.id().map_or(0, |process| process.pid);
    tokio::spawn(attached::watch(pid, attached::event_descriptors(pid), tell));
    Hybrid::new(folder.socket(VSOCK_SOCKET), ready)
}

/// A running machine.
#[derive(Debug)]
struct Running {
    qemu: Program,
    vsock: Option<Program>,
    qmp: Qmp,
    transport: Arc<dyn Transport>,
    cid: u32,
    kind: String,
    why: Option<String>,
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
            let Some(vsock) = self.vsock.as_mut() else {
                let (code, how) = self.qemu.ended().await;
                return self.after_qemu(code, how).await;
            };
            tokio::select! {
                biased;
                (code, how) = self.qemu.ended() => self.after_qemu(code, how).await,
                (_, how) = vsock.ended() => {
                    let said = vsock.said().await;
                    Ending { powered_off: false, how, said }
                }
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_is_neither_reserved_nor_one_that_people_choose() {
        assert!(free_cid() > 0xffff);
        assert!(free_cid() < u32::MAX - 1);
    }

    #[test]
    fn only_a_translated_guest_is_told_how_fast_its_counter_runs() {
        assert_eq!(cmdline("quiet", Accel::Tcg, Some(2_400_000)), "quiet tsc_early_khz=2400000");
        assert_eq!(cmdline("quiet", Accel::Tcg, None), "quiet");
        assert_eq!(cmdline("quiet", Accel::Kvm, Some(2_400_000)), "quiet");
    }
}
