//! Minimal manifests for the tests.

use std::collections::BTreeMap;

use cloister_manifest::model::{
    Attestation, Control, FirstProcess, Isolation, Kind, Limits, Logs, Manifest, Policy, Ready, Restart,
    Root, Service, VERSION,
};

/// Start and stop timeouts of the tests' services, which none needs: the same as the limit for any wait (`host::LIMIT`).
const LIMIT_MS: u64 = 60_000;

/// The service that may control others. The manifest has no service of that name: only tests are its processes.
pub(crate) const ADMIN: &str = "admin";

/// A manifest of these services.
pub(crate) fn manifest(services: Vec<Service>) -> Manifest {
    Manifest {
        version: VERSION,
        name: "test".into(),
        platforms: cloister_manifest::Platform::ALL.to_vec(),
        services,
        ingress: vec![],
        root: Root { writable_bytes: 1 << 20, additions: Vec::new(), pinned: Vec::new() },
        control: Control { host: vec![], services: vec![ADMIN.into()] },
        attestation: Attestation::default(),
        stop_timeout_ms: LIMIT_MS,
        debug: false,
    }
}

/// A service that runs this shell script, is ready once started, is never restarted and is not critical.
pub(crate) fn service(name: &str, script: &str) -> Service {
    Service {
        name: name.into(),
        kind: Kind::Service,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        cwd: "/".into(),
        first_process: FirstProcess::Cloister,
        uid: 0,
        gid: 0,
        groups: vec![],
        after: vec![],
        requires: vec![],
        ready: Ready::Started,
        start_timeout_ms: LIMIT_MS,
        live: None,
        restart: restart(Policy::Never),
        critical: false,
        stop_signal: 15,
        stop_timeout_ms: LIMIT_MS,
        logs: Logs::Forward,
        limits: Limits { memory: None, cpu_millis: None, pids: None, open_files: 1024 },
        isolation: Isolation { capabilities: vec![], allow_syscalls: vec![], writable: None },
        files: vec![],
        sealed: std::collections::BTreeMap::new(),
    }
}

/// The same, but critical: its exit ends the enclave.
pub(crate) fn critical(name: &str, script: &str) -> Service {
    Service { critical: true, ..service(name, script) }
}

/// A job.
pub(crate) fn job(name: &str, script: &str) -> Service {
    Service { kind: Kind::Job, ..service(name, script) }
}

/// Quick restarts.
pub(crate) fn restart(policy: Policy) -> Restart {
    Restart { policy, delay_ms: 20, max_delay_ms: 100, stable_ms: 60_000, burst: 3 }
}

/// A script that runs until it is asked to stop, and then exits with `code`.
pub(crate) fn until_term(code: u8) -> String {
    format!("trap 'exit {code}' TERM; echo up; while :; do sleep 1000 & wait $!; done")
}
