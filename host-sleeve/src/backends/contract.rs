//! The interface that every backend implements.
//!
//! Invariant: these types name no particular backend. docs/backends.md describes how to write one.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_image::measure::{self, NitroPcrs};
use cloister_image::tree::Content;
use tokio::io::AsyncRead;

use crate::app::Source;
use crate::error::Result;
use crate::state::EnclaveDir;
use crate::state::handle::Handle;
use crate::state::record::Platform;
use crate::transport::{Pending, Transport};

use super::finding::Finding;

/// The output of a machine's console.
pub(crate) type Console = Box<dyn AsyncRead + Send + Unpin>;

/// The backend-neutral description of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The enclave image.
    pub(crate) source: Source,
    /// The measured kernel command line.
    pub(crate) cmdline: String,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes.
    pub(crate) memory: u64,
}

/// The time limits of a backend's machines, in addition to those that the image's manifest allows its services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineLimits {
    /// From the deployment to the enclave's first status.
    pub(crate) boot: Duration,
    /// To power off after the final state was acknowledged.
    pub(crate) power_off: Duration,
    /// To exit after it was killed.
    pub(crate) kill: Duration,
    /// To remove what a terminated machine leaves behind.
    pub(crate) destroy: Duration,
}

/// One kind of machine that enclaves run on, with the options that the operator has given for it.
pub(crate) trait Backend: Debug + Send + Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// The platform of its machines: what the enclave will detect, and what the image's manifest must allow.
    fn platform(&self) -> cloister_manifest::Platform;

    /// Refuses an image of a form that the backend cannot run.
    fn accepts(&self, source: &Source) -> Result<()>;

    /// The minimum memory in bytes that the machine requires for an image of this many bytes, regardless of the image's own needs.
    fn least_memory(&self, _image: u64) -> u64 {
        0
    }

    /// The maximum memory in bytes that a machine can have on this host.
    fn max_memory(&self) -> u64 {
        u64::MAX
    }

    /// The maximum size of the ramdisks in bytes, for a kernel that unpacks to this many bytes.
    fn max_ramdisk(&self, kernel: u64) -> u64;

    /// The time limits of its machines.
    fn limits(&self) -> MachineLimits;

    /// Tests what it needs on this host. A finding that does not work contains the command that fixes it. Leaves no trace.
    fn probe(&self) -> Pending<'_, Vec<Finding>>;

    /// The measurements that its hardware should report for this plan. `None` if the hardware does not measure.
    fn measure<'a>(&'a self, plan: &'a Plan) -> Pending<'a, Result<Option<NitroPcrs>>>;

    /// Why nobody can verify what its machines run, if so. Default: their evidence is signed.
    fn unverifiable(&self) -> Option<&'static str> {
        None
    }

    /// Creates the machine and starts it. The record names the backend before this is called. If the future is dropped,
    /// nothing is left behind.
    fn deploy<'a>(
        &'a self,
        plan: &'a Plan,
        directory: &'a EnclaveDir,
    ) -> Pending<'a, Result<Box<dyn Deployment>>>;

    /// Finds what is left of a deployment whose sleeve is gone, by its recorded handle. `None` if nothing is left. A handle that
    /// is not `created` is an intent: parts of the machine may exist.
    fn reattach<'a>(&'a self, handle: &'a Handle) -> Pending<'a, Result<Option<Box<dyn Machine>>>>;
}

/// A machine that can be terminated.
pub(crate) trait Machine: Debug + Send {
    /// Waits until it has exited. May be called again after the future was dropped.
    fn ended(&mut self) -> Pending<'_, MachineExit>;

    /// Begins to terminate it, regardless of its state; wait for it with [`Machine::ended`].
    fn kill(&mut self);

    /// Terminates it immediately, and waits until nothing is left of it.
    fn destroy(&mut self) -> Pending<'_, ()>;
}

/// A running machine, in the sleeve that started it.
pub(crate) trait Deployment: Machine {
    /// The data with which [`Backend::reattach`] finds it.
    fn handle(&self) -> Handle;

    /// What it runs on, human-readable.
    fn platform(&self) -> Platform;

    /// The transport to its ports.
    fn transport(&self) -> Arc<dyn Transport>;

    /// What it was booted from, if no hardware and no device measures that: the platform `virtual`. The sleeve then offers the
    /// enclave its development security module. `None` for every machine that can prove more.
    fn booted(&self) -> Option<BootedParts> {
        None
    }

    /// Its console, once. `None` if it has none.
    fn console(&mut self) -> Option<Console>;
}

/// The parts that a machine was booted from, exactly as it loads them.
#[derive(Clone, Debug)]
pub(crate) struct BootedParts {
    /// The kernel.
    pub(crate) kernel: Content,
    /// The image's own kernel command line, without what the backend appends.
    pub(crate) command_line: String,
    /// The ramdisks.
    pub(crate) ramdisks: Vec<Content>,
}

impl BootedParts {
    /// The registers that AWS Nitro would report for them. Reads all of them.
    pub(crate) fn measure(&self) -> io::Result<NitroPcrs> {
        Ok(measure::nitro(&self.kernel, &self.command_line, &self.ramdisks, None)?.pcrs)
    }
}

/// How a machine exited, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MachineExit {
    /// It powered off cleanly, from inside.
    PoweredOff {
        /// The last output of the machine's programs, if any.
        output: Option<String>,
    },
    /// It was terminated by something else.
    Failed {
        /// What happened, such as `QEMU was killed by SIGKILL`.
        how: String,
        /// The last output of the machine's programs, if any.
        output: Option<String>,
    },
    /// It has exited, and the backend cannot determine how.
    Unknown,
}
