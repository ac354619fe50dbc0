//! What a backend is.
//!
//! Its law: these types name no particular backend.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::app::Source;
use crate::error::Result;
use crate::state::{Folder, record};
use crate::transport::{Pending, Transport};

use super::qemu;

/// A stream of what a machine's console prints.
pub(crate) type Console = Box<dyn AsyncRead + Send + Unpin>;

/// What a machine is made of.
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
    /// What QEMU is to look like, where a backend leaves that open and the operator has chosen.
    pub(crate) machine: Option<qemu::Machine>,
    /// How QEMU runs the CPUs.
    pub(crate) accel: qemu::AccelChoice,
}

/// A place where enclaves run.
pub(crate) trait Backend: Debug + Send + Sync {
    /// The name an operator types.
    fn name(&self) -> &'static str;

    /// Whether an operator can choose among its machines.
    fn has_machines(&self) -> bool {
        false
    }

    /// The least memory in bytes that the machine takes for an image of this many bytes, whatever the image itself needs.
    fn least_memory(&self, _image: u64) -> u64 {
        0
    }

    /// The most bytes of ramdisk that its machine loads beside a kernel which takes this many bytes.
    fn room(&self, kernel: u64) -> u64;

    /// Makes the machine and starts it. When the future is dropped, nothing is left of it.
    fn deploy<'a>(&'a self, plan: &'a Plan, folder: &'a Folder) -> Pending<'a, Result<Box<dyn Deployment>>>;
}

/// A machine that was started. When it is dropped, it is killed.
pub(crate) trait Deployment: Debug + Send {
    /// What it is, for the record.
    fn facts(&self) -> record::Machine;

    /// How its ports are reached.
    fn transport(&self) -> Arc<dyn Transport>;

    /// Its console, once.
    fn console(&mut self) -> Option<Console>;

    /// Waits until it has ended. May be asked again after the future was dropped.
    fn ended(&mut self) -> Pending<'_, Ending>;

    /// Begins to end it, whatever it does; [`Deployment::ended`] tells when it has.
    fn kill(&mut self);

    /// Ends it at once, and waits until nothing is left of it.
    fn destroy(&mut self) -> Pending<'_, ()>;
}

/// How a machine ended, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Whether the machine was turned off from inside, in order.
    pub(crate) powered_off: bool,
    /// What happened, in words: `QEMU was killed by SIGKILL`.
    pub(crate) how: String,
    /// The last words of the programs that made it up, if they said something.
    pub(crate) said: Option<String>,
}
