//! Where an enclave can run.
//!
//! Its law: a backend knows how to make a machine out of an enclave image, how to reach it and how to end it; it decides
//! nothing about the enclave's life. Each is found by name, and each builds its command line or request by a pure
//! function.

pub(crate) mod memory;
pub(crate) mod qemu;
pub(crate) mod size;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::app::Source;
use crate::error::{Error, Result};
use crate::state::{Folder, record};
use crate::transport::Transport;

/// A future of a trait's method.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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

/// The backends, by name.
pub(crate) fn all() -> Vec<Box<dyn Backend>> {
    vec![Box::new(qemu::Qemu), Box::new(qemu::nitro::QemuNitro)]
}

/// The backend for an image where nobody names one: the only one that takes it on any host.
pub(crate) fn for_source(source: &Source) -> &'static str {
    match source {
        Source::Artifact(_) => qemu::NAME,
        Source::Eif(_) => qemu::nitro::NAME,
    }
}

/// The backend of this name.
pub(crate) fn by_name(name: &str) -> Result<Box<dyn Backend>> {
    all().into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
        let names: Vec<&str> = all().iter().map(|backend| backend.name()).collect();
        Error::operator(format!("there is no backend named {name}"))
            .hint(format!("the backends are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_found_by_its_name() {
        assert_eq!(by_name("qemu").unwrap().name(), "qemu");
        let error = by_name("cray").unwrap_err();
        assert!(error.told().hint.as_deref().unwrap().contains("qemu"));
    }

    #[test]
    fn only_the_backend_with_several_machines_lets_one_be_chosen() {
        let choosable = |backend: &&dyn Backend| backend.has_machines();
        let all = all();
        let names: Vec<_> = all.iter().map(AsRef::as_ref).filter(choosable).map(Backend::name).collect();
        assert_eq!(names, ["qemu"]);
    }
}
