//! Images from a registry, put where the image crate reads them.
//!
//! Its law: what is in the cache has the digest that is its name. A tag is asked for once and becomes a digest, which is
//! what is built from and what the build record says; a digest whose blobs are all in the cache needs no network.
//!
//! Source: the OCI distribution specification 1.1 and Docker's token protocol (`distribution/docs/spec/auth/token`). The
//! client is our own over `ureq`: pulling is four kinds of request, and every answer has to be bounded, which the ready
//! client crates leave to their user while they bring an asynchronous runtime and a second TLS library.

mod cache;
mod challenge;
mod client;
mod credentials;
mod fault;
mod layers;
mod prune;
mod retry;
mod route;
mod token;
mod trust;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{self, Architecture, Blob, OciFault, Reference, Role, Store};

use cache::{Cache, Lock};
use client::Client;
use credentials::Found;
use fault::RegistryFault;
pub(crate) use prune::prune;
use retry::Retry;

use crate::error::Error;

/// Progress of a pull, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
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
pub(crate) struct Access {
    /// Registries, `host[:port]`, that are talked to by plain HTTP.
    pub(crate) plain_http: Vec<String>,
    /// A registry and one that has the same images: `host[:port][/prefix]`. They are tried in order, before the registry.
    pub(crate) mirrors: Vec<(String, String)>,
}

/// What a pull takes beside the name of the image.
pub(crate) struct Pull<'a> {
    /// How registries are reached.
    access: &'a Access,
    /// Receives the progress.
    tell: &'a (dyn Fn(Event) + Sync),
    /// Set when the pull is given up.
    stop: &'a AtomicBool,
    /// The tries of a request, none made yet.
    retry: Retry,
    /// Finds the login for a registry and a repository.
    login: &'a (dyn Fn(&str, &str) -> Result<Found, RegistryFault> + Sync),
}

impl<'a> Pull<'a> {
    /// A pull that reports its progress to `tell`, and is given up once `stop` is set.
    pub(crate) fn new(access: &'a Access, tell: &'a (dyn Fn(Event) + Sync), stop: &'a AtomicBool) -> Self {
        Self { access, tell, stop, retry: Retry::default(), login: &credentials::find }
    }

    /// A fault once the pull is given up.
    fn still_wanted(&self) -> Result<(), RegistryFault> {
        if self.stop.load(Ordering::Relaxed) { Err(RegistryFault::Stopped) } else { Ok(()) }
    }

    /// Pulls an image for `architecture` into the cache at `root`.
    pub(crate) fn run(
        &self,
        reference: &Reference,
        architecture: Architecture,
        root: PathBuf,
    ) -> Result<Pulled, Error> {
        let failed = |fault: Fault| fault.told(reference);
        let cache = Cache::new(root.clone()).map_err(|fault| failed(Fault::Registry(fault)))?;
        let digest = self.fetch_any(reference, architecture, &cache).map_err(failed)?;
        let repository = format!("{}/{}", reference.registry, reference.repository);
        Ok(Pulled { digest, blobs: root, repository, lock: cache.into_lock() })
    }

    /// Pulls from the first mirror that has the image, else from the registry itself.
    fn fetch_any(
        &self,
        reference: &Reference,
        architecture: Architecture,
        cache: &Cache,
    ) -> Result<Digest, Fault> {
        for mirror in mirrors(reference, self.access) {
            match self.fetch(&mirror, architecture, cache) {
                Err(Fault::Registry(fault)) if fault.is_the_servers() => {
                    (self.tell)(Event::Skipped(mirror.registry, fault.to_string()));
                }
                result => return result,
            }
        }
        self.fetch(reference, architecture, cache)
    }

    fn fetch(
        &self,
        reference: &Reference,
        architecture: Architecture,
        cache: &Cache,
    ) -> Result<Digest, Fault> {
        let client = Client::new(reference, self).map_err(Fault::Registry)?;
        let remote = Remote { client: &client, cache };
        let digest = remote.resolve(reference).map_err(Fault::Registry)?;
        (self.tell)(Event::Pinned(digest));
        let chosen = oci::find(&remote, digest, architecture).map_err(Fault::of)?;
        layers::fetch(&client, cache, &chosen.manifest.layers, self).map_err(Fault::Registry)?;
        Ok(digest)
    }
}

/// The same image at each mirror of its registry.
fn mirrors(reference: &Reference, access: &Access) -> Vec<Reference> {
    let mine = access.mirrors.iter().filter(|(registry, _)| *registry == reference.registry);
    let at = |place: &str| {
        let (registry, prefix) = place.split_once('/').unwrap_or((place, ""));
        let repository = format!("{prefix}/{}", reference.repository).trim_start_matches('/').to_owned();
        Reference { registry: registry.to_owned(), repository, ..reference.clone() }
    };
    mine.map(|(_, place)| at(place)).collect()
}

/// An image that was pulled.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// The digest of what the name stood for: a manifest, or an index of several.
    pub(crate) digest: Digest,
    /// A directory with `blobs/sha256`.
    pub(crate) blobs: PathBuf,
    /// The image's name in the registry, without a tag.
    pub(crate) repository: String,
    /// Keeps the blobs from being pruned while this lives.
    pub(crate) lock: Option<Lock>,
}

/// Why a pull failed.
enum Fault {
    Registry(RegistryFault),
    Image(OciFault),
}

impl Fault {
    /// A fault of the image crate. Where a document could not be fetched, the registry's own fault came up through it.
    fn of(fault: OciFault) -> Self {
        match fault {
            OciFault::Host { path, source } => match source.downcast::<RegistryFault>() {
                Ok(fault) => Self::Registry(fault),
                Err(source) => Self::Image(OciFault::Host { path, source }),
            },
            fault => Self::Image(fault),
        }
    }

    fn told(self, reference: &Reference) -> Error {
        let what = format!("cannot pull {reference}");
        match self {
            Self::Registry(fault) => fault.told(what),
            Self::Image(fault @ OciFault::Host { .. }) => Error::host(what).because(fault),
            Self::Image(fault @ (OciFault::Platform { .. } | OciFault::Ambiguous(_))) => {
                Error::operator(what).because(fault).hint("name another image, or one of them by its digest")
            }
            Self::Image(fault) => Error::author(what).because(fault),
        }
    }
}

/// Documents from the cache, and from the registry where they are not there yet.
struct Remote<'a> {
    client: &'a Client<'a>,
    cache: &'a Cache,
}

impl Remote<'_> {
    /// The digest a reference stands for. Its document is in the cache then.
    fn resolve(&self, reference: &Reference) -> Result<Digest, RegistryFault> {
        if let Some(digest) = reference.digest {
            self.document(&digest, Role::Manifest)?;
            return Ok(digest);
        }
        let bytes = self.client.document(&self.client.manifest(&reference.target()), MAX_DOCUMENT)?;
        let digest = Digest::of(&bytes);
        self.cache.keep_bytes(&digest, &bytes)?;
        Ok(digest)
    }

    /// Sees that a document is in the cache.
    fn document(&self, digest: &Digest, role: Role) -> Result<(), RegistryFault> {
        if self.cache.has_document(digest) {
            return Ok(());
        }
        let place = match role {
            Role::Manifest => self.client.manifest(&digest.to_string()),
            Role::Configuration | Role::Layer => self.client.blob(digest),
        };
        let bytes = self.client.document(&place, MAX_DOCUMENT)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RegistryFault::Digest { expected: *digest, found });
        }
        self.cache.keep_bytes(digest, &bytes)
    }
}

impl Store for Remote<'_> {
    fn find(&self, digest: &Digest, role: Role) -> Result<Option<Blob>, OciFault> {
        if role != Role::Layer {
            let path = || PathBuf::from(self.client.name());
            let fault = |fault| OciFault::Host { path: path(), source: std::io::Error::other(fault) };
            self.document(digest, role).map_err(fault)?;
        }
        self.cache.layout().find(digest, role)
    }
}

#[cfg(test)]
mod tests;
