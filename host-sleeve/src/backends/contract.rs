//! What a backend is.
//!
//! Its law: these types name no particular backend. docs/backends.md says how to write one.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use cloister_image::measure::NitroPcrs;
use tokio::io::AsyncRead;

use crate::app::Source;
use crate::error::Result;
use crate::state::Folder;
use crate::state::handle::Handle;
use crate::state::record::Platform;
use crate::transport::{Pending, Transport};

use super::finding::Finding;

/// A stream of what a machine's console prints.
pub(crate) type Console = Box<dyn AsyncRead + Send + Unpin>;

/// What a machine is made of, whoever makes it.
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

/// How long a backend's machines may take, beside what the image's manifest allows its services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineLimits {
    /// From the deployment to the enclave's first word.
    pub(crate) boot: Duration,
    /// To power off after the final state was seen.
    pub(crate) power_off: Duration,
    /// To end after it was killed.
    pub(crate) kill: Duration,
    /// To remove what an ended machine leaves behind.
    pub(crate) destroy: Duration,
}

/// A place where enclaves run, with the options that an operator has chosen for it.
pub(crate) trait Backend: Debug + Send + Sync {
    /// The name an operator types.
    fn name(&self) -> &'static str;

    /// Refuses an image of a form that it cannot run.
    fn accepts(&self, source: &Source) -> Result<()>;

    /// The least memory in bytes that the machine takes for an image of this many bytes, whatever the image itself needs.
    fn least_memory(&self, _image: u64) -> u64 {
        0
    }

    /// The most bytes of ramdisk that its machine loads beside a kernel which takes this many bytes.
    fn room(&self, kernel: u64) -> u64;

    /// How long its machines may take.
    fn limits(&self) -> MachineLimits;

    /// What of it works on this host, and what would add what does not. It leaves no trace.
    fn probe(&self) -> Pending<'_, Vec<Finding>>;

    /// What its hardware should report of this plan; nothing where it measures nothing.
    fn measure<'a>(&'a self, plan: &'a Plan) -> Pending<'a, Result<Option<NitroPcrs>>>;

    /// Makes the machine and starts it. The record names the backend before this is called. When the future is dropped,
    /// nothing is left of it.
    fn deploy<'a>(&'a self, plan: &'a Plan, folder: &'a Folder) -> Pending<'a, Result<Box<dyn Deployment>>>;

    /// Finds what is left of a deployment whose sleeve is gone, by what was recorded of it; nothing where nothing is left. A
    /// handle that is not `created` is an intent: some of it may be there.
    fn reattach<'a>(&'a self, handle: &'a Handle) -> Pending<'a, Result<Option<Box<dyn Remains>>>>;
}

/// A machine that can be ended.
pub(crate) trait Remains: Debug + Send {
    /// Waits until it has ended. May be asked again after the future was dropped.
    fn ended(&mut self) -> Pending<'_, Ending>;

    /// Begins to end it, whatever it does; [`Remains::ended`] tells when it has.
    fn kill(&mut self);

    /// Ends it at once, and waits until nothing is left of it.
    fn destroy(&mut self) -> Pending<'_, ()>;
}

/// A machine that was started, and is attended by the sleeve that started it.
pub(crate) trait Deployment: Remains {
    /// What finds it again.
    fn handle(&self) -> Handle;

    /// What it is, for people.
    fn platform(&self) -> Platform;

    /// How its ports are reached.
    fn transport(&self) -> Arc<dyn Transport>;

    /// Its console, once; nothing where there is none.
    fn console(&mut self) -> Option<Console>;
}

/// How a machine ended, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was turned off from inside, in order.
    PoweredOff {
        /// What the programs that made it up printed last, if anything.
        said: Option<String>,
    },
    /// Something else ended it.
    Broke {
        /// What happened: `QEMU was killed by SIGKILL`.
        how: String,
        /// What the programs that made it up printed last, if anything.
        said: Option<String>,
    },
    /// It has ended, and the backend cannot say how.
    Unknown,
}
