//! What is filled in where neither the manifest nor the image says anything, each with its reason.
//!
//! Its law: every default is here, ends up in the measured manifest, and is published in `docs/manifest.md`.

use super::signal::Signal;

/// The service of a manifest that names none, and the enclave's name where several services leave it open.
pub(super) const NAME: &str = "app";

/// Memory is what the root's changes are held in: enough for sockets, pid files and caches, too little to be mistaken for a
/// disk.
pub(super) const ROOT_WRITABLE: u64 = 64 << 20;

/// Time to become ready: a JVM or an emulated machine needs tens of seconds, a person waits about a minute.
pub(super) const START_TIMEOUT_MS: u64 = 60_000;

/// Time for a job to end: only its author knows, so only the longest duration there is ends it.
pub(super) const JOB_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Time to end after the stop signal: what `docker stop` gives, which images are written for.
pub(super) const STOP_TIMEOUT_MS: u64 = 10_000;

/// Time in which open connections may end before the services are asked to; added to what their chain may take.
pub(super) const DRAIN_MS: u64 = 5_000;

/// What asks a program to end.
pub(super) const STOP_SIGNAL: Signal = Signal::TERM;

/// The first pause: shorter than a person notices, long enough that a crash loop does not fill a CPU.
pub(super) const RESTART_DELAY_MS: u64 = 200;

/// The longest pause: a service whose fault has passed is back within half a minute.
pub(super) const RESTART_MAX_DELAY_MS: u64 = 30_000;

/// Twice the longest pause: a service that crashes in every attempt never looks stable.
pub(super) const RESTART_STABLE_MS: u64 = 60_000;

/// Restarts in a row: with the pauses above they take six seconds, in which a passing fault passes.
pub(super) const RESTART_BURST: u32 = 5;

/// Between two liveness checks.
pub(super) const LIVE_INTERVAL_MS: u64 = 10_000;

/// For one liveness check: longer than any pause of a healthy program's garbage collector.
pub(super) const LIVE_TIMEOUT_MS: u64 = 3_000;

/// Failed checks in a row: one lost to load is not a dead service.
pub(super) const LIVE_THRESHOLD: u32 = 3;

/// Linux's own soft limit of 1024 is too low for servers, and programs that close every possible descriptor (old Pythons, GNU
/// make) are slow past this.
pub(super) const OPEN_FILES: u32 = 65_536;

/// Everyone in the service may read it, nobody may write it.
pub(super) const FILE_MODE: u32 = 0o444;

/// Where programs are looked for: what container engines use where the image says nothing.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
