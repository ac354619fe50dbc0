//! The defaults of fields that neither the manifest nor the image sets, each with its reason.
//!
//! Invariant: every default is here, ends up in the measured manifest, and is published in `docs/manifest.md`.

use super::signal::Signal;
use crate::platform::Platform;

/// The name of the service in a manifest without service names, and the enclave's name if there are several services.
pub(super) const NAME: &str = "app";

/// Every platform: where an image runs is the operator's choice, and verifiers check the evidence. A list is for images that must
/// not run without it.
pub(super) const PLATFORMS: [Platform; 4] = Platform::ALL;

/// Changes to the root are kept in memory: enough for sockets, pid files and caches, too little to be mistaken for a disk.
pub(super) const ROOT_WRITABLE: u64 = 64 << 20;

/// Time to become ready: a JVM or an emulated machine needs tens of seconds; a person waits for about a minute.
pub(super) const START_TIMEOUT_MS: u64 = 60_000;

/// Time for a job to complete: only its author knows, so the default is the maximum duration.
pub(super) const JOB_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Time to terminate after the stop signal: that of `docker stop`, for which images are written.
pub(super) const STOP_TIMEOUT_MS: u64 = 10_000;

/// Time for open connections to end before the services are stopped; added to the time for stopping the services.
pub(super) const DRAIN_MS: u64 = 5_000;

/// The signal that requests termination.
pub(super) const STOP_SIGNAL: Signal = Signal::TERM;

/// The first delay: shorter than a person notices, long enough that a crash loop does not occupy a CPU.
pub(super) const RESTART_DELAY_MS: u64 = 200;

/// The maximum delay: after a temporary failure a service is back within half a minute.
pub(super) const RESTART_MAX_DELAY_MS: u64 = 30_000;

/// Twice the maximum delay: a service that crashes in every attempt never looks stable.
pub(super) const RESTART_STABLE_MS: u64 = 60_000;

/// Restarts in a row: with the delays above they take six seconds, enough for a temporary failure to pass.
pub(super) const RESTART_BURST: u32 = 5;

/// The time between two liveness checks.
pub(super) const LIVE_INTERVAL_MS: u64 = 10_000;

/// The time limit for one liveness check: longer than any pause of a healthy program's garbage collector.
pub(super) const LIVE_TIMEOUT_MS: u64 = 3_000;

/// Consecutive failed checks: a single one lost to load does not mean that the service is dead.
pub(super) const LIVE_THRESHOLD: u32 = 3;

/// Linux's own soft limit of 1024 is too low for servers, and programs that close every possible descriptor (old Pythons, GNU
/// make) are slow past this.
pub(super) const OPEN_FILES: u32 = 65_536;

/// Every process of the service may read it, none may write it.
pub(super) const FILE_MODE: u32 = 0o444;

/// The default search path of container engines.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
