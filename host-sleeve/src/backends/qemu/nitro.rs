//! QEMU's `nitro-enclave` machine: an AWS Nitro enclave with its security module, emulated.
//!
//! Invariant: it boots the very file that AWS Nitro boots, and the differences from real hardware are documented: its evidence
//! is not signed, and there is no reply to the heartbeat (docs/decisions/004).

use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloister_image::digest::Hashed;
use cloister_image::eif::MEMORY_FACTOR;
use cloister_image::measure::NitroPcrs;
use cloister_manifest::Platform;
use cloister_sys::tsc::Meter;

use crate::app::Source;
use crate::error::{Error, ErrorContext, Result};
use crate::install;
use crate::state::EnclaveDir;
use crate::state::handle::Handle;
use crate::transport::Pending;

use super::super::contract::{Backend, Deployment, Machine, MachineLimits, Plan};
use super::super::finding::{Finding, lacks, optional, works};
use super::super::options::{Chosen, Offer};
use super::accel::{AccelChoice, accel_name, choose_accel};
use super::argv::{self, Accel, NitroSpec};
use super::boot::{AnonymousFile, anonymous_file};
use super::children::Program;
use super::counter;
use super::found::{self, Found};
use super::leftovers;
use super::limits::{LIMITS, max_memory};
use super::options;
use super::qmp::Qmp;
use super::ramdisk_limit::max_ramdisk;
use super::running::Running;
use super::vsock::{find_vsock_program, free_cid, hybrid, start_vsock};

/// The backend's name.
pub(crate) const NAME: &str = "qemu-nitro";

/// The machine type's name.
const MACHINE: &str = "nitro-enclave";

/// The variable with the path of a QEMU that has the machine.
const VARIABLE: &str = "CLOISTER_QEMU_NITRO";

/// The name of a QEMU with the machine, in Cloister's libexec directory and in `PATH`.
const PROGRAM: &str = "qemu-nitro";

/// Makes the guest restart by a triple fault, which QEMU detects.
const RESTART: &str = "reboot=t";

/// Its command line options.
pub(crate) const OFFERS: &[Offer] = &[options::ACCEL];

/// The backend.
#[derive(Debug)]
struct QemuNitro {
    accel: AccelChoice,
}

/// The backend with these options.
pub(crate) fn open(chosen: &Chosen) -> Result<Box<dyn Backend>> {
    if chosen.get(options::MACHINE.name).is_some() {
        let what = format!("the backend {NAME} has only one machine type and does not support --machine");
        return Err(Error::operator(what).hint("omit --machine, or use --backend qemu"));
    }
    options::check(NAME, OFFERS, chosen)?;
    Ok(Box::new(QemuNitro { accel: options::accel(chosen)? }))
}

/// Finds a QEMU that has the machine: the one in the variable, Cloister's own, the distribution's.
async fn find() -> Result<Found> {
    let hint = format!(
        "build one with ./scripts/qemu-nitro (./scripts/build then installs it), or set {VARIABLE} to its path"
    );
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = named.or_else(|| install::program(PROGRAM)).or_else(|| install::in_path(found::PROGRAM));
    let lacks = || Error::host(format!("no QEMU with the machine {MACHINE} is installed")).hint(&hint);
    let found = found::at(path.ok_or_else(lacks)?).await?;
    let machines = found::query(&found.path, &["-machine", "help"]).await?;
    let has_it = |line: &str| line.split_whitespace().next() == Some(MACHINE);
    if machines.lines().any(has_it) {
        return Ok(found);
    }
    Err(Error::host(format!("{} does not have the machine {MACHINE}", found.path.display())).hint(hint))
}

async fn probe() -> Finding {
    const WHAT: &str = "QEMU's nitro-enclave machine";
    optional(match find().await {
        Ok(found) => works(WHAT, format!("version {} at {}", found.version, found.path.display())),
        // Only the command; the error of `run` also names the variable.
        Err(error) => lacks(WHAT, error.to_string(), Some("./scripts/qemu-nitro")),
    })
}

impl Backend for QemuNitro {
    fn name(&self) -> &'static str {
        NAME
    }

    /// It has AWS's security module, emulated.
    fn platform(&self) -> Platform {
        Platform::Nitro
    }

    /// It accepts all: an image that is not a file for AWS Nitro is converted.
    fn accepts(&self, _source: &Source) -> Result<()> {
        Ok(())
    }

    /// The machine's memory layout is that of a microvm (`hw/i386/nitro_enclave.c`).
    fn max_ramdisk(&self, kernel: u64) -> u64 {
        max_ramdisk(kernel)
    }

    /// What AWS's tools require, so that an image that runs here also runs there.
    fn least_memory(&self, image: u64) -> u64 {
        image.saturating_mul(MEMORY_FACTOR)
    }

    fn max_memory(&self) -> u64 {
        max_memory()
    }

    fn limits(&self) -> MachineLimits {
        LIMITS
    }

    fn probe(&self) -> Pending<'_, Vec<Finding>> {
        Box::pin(async { vec![probe().await] })
    }

    fn unverifiable(&self) -> Option<&'static str> {
        Some("QEMU's Nitro Security Module does not sign its documents")
    }

    fn measure<'a>(&'a self, plan: &'a Plan) -> Pending<'a, Result<Option<NitroPcrs>>> {
        Box::pin(measure(&plan.source))
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
            let vsock = find_vsock_program()?;
            let boot = Boot::prepare(&plan.source).await?;
            // Whether KVM works depends on host and kernel; the test uses a QEMU that is installed with its firmware.
            let prober = found::find().await.unwrap_or_else(|_| qemu.clone());
            let (accel, why) = choose_accel(self.accel, &prober, &boot.kernel, &boot.kernel_digest).await?;
            let cid = free_cid()?;
            let vsock = start_vsock(&vsock, cid, &directory.dir().path()).await?;
            let spec = NitroSpec {
                name: directory.name(),
                accel,
                cpus: plan.cpus,
                memory: plan.memory,
                image: &boot.image.path(),
                append: &append(accel, clock.khz()),
            };
            let argv = argv::nitro(&spec);
            let transport = Arc::new(hybrid(&vsock, directory));
            let qemu = Program::start(
                "QEMU",
                &qemu.path,
                argv,
                &directory.dir().path(),
                vec![boot.image.into_fd()],
            )?;
            let deployment: Box<dyn Deployment> = Box::new(Running {
                backend: NAME,
                qemu,
                vsock: Some(vsock),
                qmp: Qmp::listen(directory.dir().clone(), argv::QMP_SOCKET),
                transport,
                cid,
                kind: format!("{MACHINE}, {}", accel_name(accel)),
                why,
                booted: None,
            });
            Ok(deployment)
        })
    }
}

/// What the security module should report. It is computed from the image while the launch is in progress; the data that is
/// deployed is checked against the same digests.
async fn measure(source: &Source) -> Result<Option<NitroPcrs>> {
    let artifact = match source {
        Source::Eif(file) => return Ok(Some(file.explanation.pcrs)),
        Source::Artifact(artifact) => artifact.clone(),
    };
    let measured = tokio::task::spawn_blocking(move || {
        artifact.measurements().map_err(|error| {
            Error::operator(format!("cannot measure {}", artifact.path().display()))
                .because(error)
                .hint("if it is damaged, rebuild it")
        })
    });
    let measured =
        measured.await.map_err(|error| Error::host("the measurement was aborted").because(error))??;
    Ok(measured.nitro.map(|nitro| nitro.pcrs))
}

/// Arguments after the measured command line that compensate for what this machine lacks. It has no keyboard controller that
/// could restart it: the kernel would jump into the firmware, which boots it again without QEMU noticing (docs/decisions/004).
/// And an emulated guest has no clock but the counter, whose frequency is passed to it, and ticks of 4 ms (see the `qemu`
/// backend); AWS's has its own.
fn append(accel: Accel, tsc_khz: Option<u32>) -> String {
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("{RESTART} tsc=reliable {}", counter::arguments(khz)),
        _ => RESTART.to_owned(),
    }
}

/// What is booted.
struct Boot {
    image: AnonymousFile,
    kernel: AnonymousFile,
    kernel_digest: cloister_image::digest::Digest,
}

impl Boot {
    /// Creates the file, or copies it, as an anonymous file. Its digests are checked meanwhile.
    async fn prepare(source: &Source) -> Result<Self> {
        let source = source.clone();
        let copied = tokio::task::spawn_blocking(move || Self::copy(&source, &install::cache("tmp")?)).await;
        copied.map_err(|error| Error::internal("copying the enclave image was aborted").because(error))?
    }

    fn copy(source: &Source, scratch: &Path) -> Result<Self> {
        let context = || format!("cannot write into {}", scratch.display());
        let mut image = anonymous_file(scratch).context(context)?;
        match source {
            Source::Artifact(artifact) => {
                artifact.write_eif(&mut image).map_err(|error| {
                    Error::operator(format!(
                        "cannot create a file for AWS Nitro from {}",
                        artifact.path().display()
                    ))
                    .because(error)
                    .hint("if it is damaged, rebuild it; if the disk is full, free some space")
                })?;
            }
            Source::Eif(file) => file.copy(&mut image)?,
        }
        image.rewind().context(context)?;
        let mut kernel = Hashed::new(anonymous_file(scratch).context(context)?);
        source.copy_kernel(&mut kernel)?;
        let (kernel, kernel_digest) = kernel.finish();
        Ok(Self {
            image: AnonymousFile::from_file(image),
            kernel: AnonymousFile::from_file(kernel),
            kernel_digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_restarts_visibly_and_an_emulated_one_gets_its_counters_frequency() {
        assert_eq!(
            append(Accel::Tcg, Some(2_400_000)),
            "reboot=t tsc=reliable tsc_early_khz=2400000 lpj=9600000"
        );
        assert_eq!(append(Accel::Tcg, None), "reboot=t");
        assert_eq!(append(Accel::Kvm, Some(2_400_000)), "reboot=t");
    }

    #[test]
    fn memory_is_what_the_vendors_tools_require() {
        assert_eq!(QemuNitro { accel: AccelChoice::Auto }.least_memory(100), 400);
    }
}
