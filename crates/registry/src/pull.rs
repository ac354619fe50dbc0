//! What a pull takes, and how it reports.
//!
//! Its law: it is complete before the first request.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_image::digest::Digest;

use super::credentials::{self, Found};
use super::fault::RegistryFault;
use super::retry::Retry;

/// Progress of a pull, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This is what the name stands for now.
    Pinned(Digest),
    /// A layer of so many bytes is being fetched.
    Fetching(Digest, u64),
    /// It is there now.
    Fetched(Digest),
    /// A request failed for this reason and is repeated after a pause.
    Waiting(Duration, String),
    /// This mirror was passed over for this reason.
    Skipped(String, String),
}

/// How registries are reached, as the user says.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Registries, `host[:port]`, that are talked to by plain HTTP.
    pub plain_http: Vec<String>,
    /// A registry and one that has the same images: `host[:port][/prefix]`. They are tried in order, before the registry.
    pub mirrors: Vec<(String, String)>,
}

/// What a pull takes beside the name of the image.
pub struct Pull<'a> {
    /// How registries are reached.
    pub(super) access: &'a Access,
    /// Receives the progress.
    pub(super) tell: &'a (dyn Fn(Event) + Sync),
    /// Set when the pull is given up.
    pub(super) stop: &'a AtomicBool,
    /// The tries of a request, none made yet.
    pub(super) retry: Retry,
    /// Finds the login for a registry and a repository.
    pub(super) login: &'a (dyn Fn(&str, &str) -> Result<Found, RegistryFault> + Sync),
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("access", self.access).finish_non_exhaustive()
    }
}

impl<'a> Pull<'a> {
    /// A pull that reports its progress to `tell`, and is given up once `stop` is set.
    #[must_use]
    pub fn new(access: &'a Access, tell: &'a (dyn Fn(Event) + Sync), stop: &'a AtomicBool) -> Self {
        Self { access, tell, stop, retry: Retry::default(), login: &credentials::find }
    }

    /// A fault once the pull is given up.
    pub(super) fn still_wanted(&self) -> Result<(), RegistryFault> {
        if self.stop.load(Ordering::Relaxed) { Err(RegistryFault::Stopped) } else { Ok(()) }
    }
}
