//! Translates the manifest's settings of a service to what init applies: argument list, environment, capabilities,
//! filter.
//!
//! Invariant: a service's confinement is computed here from the measured manifest and a table in this directory; init
//! applies it without interpreting it.

mod allowed;
mod capabilities;
mod denied;
mod filter;
mod own;
mod sealed;
mod servant;

use cloister_manifest::model::{self, Check, FirstProcess, MAX_SEALED, Ready, Root, Service};
use cloister_wire::hold::{File, Limits, Place, Spawn, View};

pub use capabilities::UnknownCapability;
pub use filter::FilterError;
pub use own::{OwnError, confine as confine_supervisor};
pub use sealed::hand_over;
pub use servant::attestor::{UID as ATTESTOR_UID, spawn as attestor};
pub use servant::gateway::{UID as GATEWAY_UID, spawn as gateway};
pub use servant::terminator::spawn as terminator;

/// The address of the socket for `sd_notify(3)`, in the abstract namespace, so that no mount hides it.
pub const NOTIFY_ADDRESS: &str = "cloister/notify";

const MICROS_PER_MILLI: u64 = 1000;

/// A service whose confinement cannot be computed. It is not started.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The manifest names a capability that this supervisor does not know.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// The filter cannot be built.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The manifest has more sealed texts than the builder allows.
    #[error("{0} sealed texts, the limit is {MAX_SEALED}")]
    Sealed(usize),
}

/// The request to init to start `service`, in a view of `root`.
pub fn spawn(service: &Service, root: &Root) -> Result<Spawn, ConfineError> {
    Ok(Spawn {
        argv: service.argv.clone(),
        env: environment(service).into_iter().chain(sealed::variables(&service.sealed)).collect(),
        place: Place::Root(View {
            cwd: service.cwd.clone(),
            as_pid_1: service.first_process == FirstProcess::Service,
            writable: service.isolation.writable.clone(),
            pinned: root.pinned.clone(),
            files: files(service, root),
        }),
        uid: service.uid,
        gid: service.gid,
        groups: service.groups.clone(),
        capabilities: capabilities::mask(&service.isolation.capabilities)?,
        seccomp: filter::compile(&service.isolation.allow_syscalls)?,
        limits: limits(service),
        fds: sealed::count(&service.sealed)?,
    })
}

/// The system calls refused by default, each with its reason, for the documentation.
pub fn refused_calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    denied::DENIED.iter().map(|row| (row.name, row.reason))
}

/// The system calls that servants may make, each with its purpose. Any other kills the servant.
pub fn servants_calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    servant::calls().map(|row| (row.name, row.reason))
}

/// The manifest's environment, plus the variables of `sd_notify(3)` for a service that reports readiness or liveness.
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

/// Its own files, and the additions to every view for paths where it has none of its own. As in a container engine,
/// these are writable unless the root is read-only.
fn files(service: &Service, root: &Root) -> Vec<File> {
    let is_own = |path: &str| service.files.iter().any(|file| file.path == path);
    let writable = service.isolation.writable.is_none();
    let additions = root.additions.iter().filter(|file| !is_own(&file.path)).map(|file| (file, writable));
    let own = service.files.iter().map(|file| (file, false));
    own.chain(additions).map(|(file, writable)| mounted(file, writable)).collect()
}

fn mounted(file: &model::File, writable: bool) -> File {
    File { path: file.path.clone(), content: file.content.clone(), mode: file.mode, writable }
}

/// Cloister's first process does not count against the service's limit of processes.
fn limits(service: &Service) -> Limits {
    let limits = &service.limits;
    let extra = u32::from(service.first_process == FirstProcess::Cloister);
    Limits {
        memory: limits.memory,
        cpu_millis: limits.cpu_millis,
        pids: limits.pids.map(|pids| pids.saturating_add(extra)),
        open_files: Some(limits.open_files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"{"name":"web","kind":"service","argv":["/bin/web"],"env":{},"cwd":"/","first_process":"cloister","uid":0,"gid":0,"groups":[],
        "after":[],"requires":[],"ready":"started","start_timeout_ms":1,"live":null,"restart":{"policy":"never",
        "delay_ms":1,"max_delay_ms":1,"stable_ms":1,"burst":1},"critical":true,"stop_signal":15,"stop_timeout_ms":1,
        "logs":"forward","limits":{"memory":null,"cpu_millis":null,"pids":null,"open_files":24},"isolation":{
        "capabilities":[],"allow_syscalls":[],"writable":null},"files":[],"sealed":{}}"#;

    fn view_of(service: &Service, root: &Root) -> View {
        match spawn(service, root).unwrap().place {
            Place::Root(view) => view,
            Place::Empty => panic!("a service has a root"),
        }
    }

    #[test]
    fn a_services_own_file_overrides_an_addition_of_the_same_path() {
        let file = |path: &str, content: &str| model::File {
            path: path.to_owned(),
            content: content.to_owned(),
            mode: 0o444,
        };
        let additions = vec![file("/etc/hosts", "added"), file("/etc/hostname", "added")];
        let root = Root { writable_bytes: 0, additions, pinned: vec!["/etc".to_owned()] };
        let mut service: Service = serde_json::from_str(WEB).unwrap();
        service.files = vec![file("/etc/hosts", "own")];
        let view = view_of(&service, &root);
        let files: Vec<_> = view.files.iter().map(|f| (&*f.path, &*f.content, f.writable)).collect();
        assert_eq!(files, [("/etc/hosts", "own", false), ("/etc/hostname", "added", true)]);
        assert_eq!(view.pinned, ["/etc"]);
        service.isolation.writable = Some(vec![]);
        assert!(view_of(&service, &root).files.iter().all(|file| !file.writable));
    }
}
