//! From the manifest's words about a service to what init applies: argument list, environment, capabilities, filter.
//!
//! Its law: what confines a service is computed here from the measured manifest and a table in this folder; init applies
//! it without understanding it.

mod capabilities;
mod denied;
mod filter;
mod sealed;

use cloister_manifest::model::{self, Check, FirstProcess, MAX_SEALED, Ready, Service};
use cloister_wire::hold::{File, Limits, Spawn};

pub use capabilities::UnknownCapability;
pub use filter::FilterError;
pub use sealed::hand_over;

/// The address of the socket for `sd_notify(3)`, in the abstract namespace, so that no mount hides it.
pub const NOTIFY_ADDRESS: &str = "cloister/notify";

const MICROS_PER_MILLI: u64 = 1000;

/// A service whose confinement cannot be computed. It is not started.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The manifest names a capability that this supervisor does not know.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// The filter cannot be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The manifest has more sealed texts than the builder lets pass.
    #[error("{0} sealed texts, {MAX_SEALED} are the most")]
    Sealed(usize),
}

/// What init is asked to run for `service`.
pub fn spawn(service: &Service) -> Result<Spawn, ConfineError> {
    Ok(Spawn {
        argv: service.argv.clone(),
        env: environment(service).into_iter().chain(sealed::variables(&service.sealed)).collect(),
        cwd: service.cwd.clone(),
        as_first: service.first_process == FirstProcess::Service,
        uid: service.uid,
        gid: service.gid,
        groups: service.groups.clone(),
        capabilities: capabilities::mask(&service.isolation.capabilities)?,
        seccomp: filter::compile(&service.isolation.allow_syscalls)?,
        writable: service.isolation.writable.clone(),
        files: service.files.iter().map(file).collect(),
        limits: limits(service),
        fds: sealed::count(&service.sealed)?,
    })
}

/// The system calls refused by default, each with the reason: for documents and for people who ask.
pub fn refused_calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    denied::DENIED.iter().map(|row| (row.name, row.reason))
}

/// The manifest's environment and nothing else, but for a service that is to say when it is ready or alive.
fn environment(service: &Service) -> Vec<String> {
    let mut env: Vec<String> = service.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let watchdog = service.live.as_ref().filter(|live| live.check == Check::Watchdog);
    if service.ready == Ready::Notify || watchdog.is_some() {
        env.push(format!("NOTIFY_SOCKET=@{NOTIFY_ADDRESS}"));
    }
    if let Some(live) = watchdog {
        env.push(format!("WATCHDOG_USEC={}", live.interval_ms.saturating_mul(MICROS_PER_MILLI)));
    }
    env
}

fn file(file: &model::File) -> File {
    File { path: file.path.clone(), content: file.content.clone(), mode: file.mode }
}

/// A first process of ours is not one of the service's own.
fn limits(service: &Service) -> Limits {
    let limits = &service.limits;
    let ours = u32::from(service.first_process == FirstProcess::Cloister);
    Limits {
        memory: limits.memory,
        cpu_millis: limits.cpu_millis,
        pids: limits.pids.map(|pids| pids.saturating_add(ours)),
        open_files: Some(limits.open_files),
    }
}
