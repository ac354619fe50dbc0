//! The parameters of a pull, and its progress reports.
//!
//! Invariant: the parameters are complete before the first request.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_image::digest::Digest;

use super::credentials::{self, Found};
use super::error::RegistryError;
use super::retry::Retry;

/// Progress of a pull, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The image name was resolved to this digest.
    Pinned(Digest),
    /// A layer of this many bytes is being fetched.
    Fetching(Digest, u64),
    /// The layer was fetched.
    Fetched(Digest),
    /// A request failed for this reason and will be repeated after this pause.
    Waiting(Duration, String),
    /// This mirror was skipped for this reason.
    Skipped(String, String),
}

/// How registries are reached, as specified by the user.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Registries, `host[:port]`, that are accessed by plain HTTP.
    pub plain_http: Vec<String>,
    /// Registries and their mirrors, `host[:port][/prefix]`. Mirrors are tried in order, before the registry.
    pub mirrors: Vec<(String, String)>,
}

/// The parameters of a pull other than the image's name.
pub struct Pull<'a> {
    /// How registries are reached.
    pub(super) access: &'a Access,
    /// Receives the progress.
    pub(super) report: &'a (dyn Fn(Event) + Sync),
    /// Set to cancel the pull.
    pub(super) stop: &'a AtomicBool,
    /// The initial retry counter of each request.
    pub(super) retry: Retry,
    /// Finds the login for a registry and a repository.
    pub(super) login: &'a (dyn Fn(&str, &str) -> Result<Found, RegistryError> + Sync),
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("access", self.access).finish_non_exhaustive()
    }
}

impl<'a> Pull<'a> {
    /// A pull that reports its progress to `report`, and is cancelled once `stop` is set.
    #[must_use]
    pub fn new(access: &'a Access, report: &'a (dyn Fn(Event) + Sync), stop: &'a AtomicBool) -> Self {
        Self { access, report, stop, retry: Retry::default(), login: &credentials::find }
    }

    /// An error if the pull was cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), RegistryError> {
        if self.stop.load(Ordering::Relaxed) { Err(RegistryError::Stopped) } else { Ok(()) }
    }
}
