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
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{self, Architecture, Blob, OciFault, Reference, Role, Store};

use cache::Cache;
use client::Client;
use fault::RegistryFault;

use crate::error::Error;

/// What happens during a pull, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// This is what the name stands for now.
    Pinned(Digest),
    /// A layer of so many bytes is being fetched.
    Fetching(Digest, u64),
    /// It is there now.
    Fetched(Digest),
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    /// The digest of what the name stood for: a manifest, or an index of several.
    pub(crate) digest: Digest,
    /// A directory with `blobs/sha256`.
    pub(crate) blobs: PathBuf,
    /// The image's name in the registry, without a tag.
    pub(crate) repository: String,
}

/// Pulls an image for `architecture` into the cache at `cache`. Once `stop` is set, it is given up.
pub(crate) fn pull(
    reference: &Reference,
    architecture: Architecture,
    cache: PathBuf,
    tell: &(dyn Fn(Event) + Sync),
    stop: &Arc<AtomicBool>,
) -> Result<Pulled, Error> {
    let work = || {
        let cache = Cache::new(cache.clone(), Arc::clone(stop)).map_err(Fault::Registry)?;
        let client = Client::new(reference).map_err(Fault::Registry)?;
        let remote = Remote { client: &client, cache: &cache };
        let digest = remote.resolve(reference).map_err(Fault::Registry)?;
        tell(Event::Pinned(digest));
        let chosen = oci::find(&remote, digest, architecture).map_err(Fault::Image)?;
        layers::fetch(&client, &cache, &chosen.manifest.layers, tell).map_err(Fault::Registry)?;
        Ok(digest)
    };
    let digest = work().map_err(|fault: Fault| fault.told(reference))?;
    let repository = format!("{}/{}", reference.registry, reference.repository);
    Ok(Pulled { digest, blobs: cache, repository })
}

/// Why a pull failed.
enum Fault {
    Registry(RegistryFault),
    Image(OciFault),
}

impl Fault {
    fn told(self, reference: &Reference) -> Error {
        let what = format!("cannot pull {reference}");
        match self {
            Self::Registry(fault) => fault.told(what),
            // A document could not be fetched: the reason came up through the image crate as the system's.
            Self::Image(OciFault::Host { path, source }) => match source.downcast::<RegistryFault>() {
                Ok(fault) => fault.told(what),
                Err(source) => Error::host(what).because(OciFault::Host { path, source }),
            },
            Self::Image(fault @ (OciFault::Platform { .. } | OciFault::Ambiguous(_))) => {
                Error::operator(what).because(fault).hint("name another image, or one of them by its digest")
            }
            Self::Image(fault) => Error::author(what).because(fault),
        }
    }
}

/// Documents from the cache, and from the registry where they are not there yet.
struct Remote<'a> {
    client: &'a Client,
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
