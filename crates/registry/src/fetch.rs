//! A pull: from an image name to blobs in the cache.
//!
//! Invariant: a tag is resolved once to a digest; every document is checked against its digest before it is stored.

use std::path::PathBuf;

use cloister_image::digest::Digest;
use cloister_image::limits::MAX_DOCUMENT;
use cloister_image::oci::{self, Architecture, Blob, OciError, Reference, Role, Store};

use super::cache::{Cache, Lock};
use super::client::Client;
use super::error::{PullError, RegistryError};
use super::layers;
use super::pull::{Access, Event, Pull};

impl Pull<'_> {
    /// Pulls an image for `architecture` into the cache at `root`.
    pub fn run(
        &self,
        reference: &Reference,
        architecture: Architecture,
        root: PathBuf,
    ) -> Result<Pulled, PullError> {
        let cache = Cache::new(root.clone())?;
        let digest = self.fetch_any(reference, architecture, &cache)?;
        let repository = format!("{}/{}", reference.registry, reference.repository);
        Ok(Pulled { digest, blobs: root, repository, lock: cache.into_lock() })
    }

    /// Pulls from the first mirror that has the image; if none has it, from the registry itself.
    fn fetch_any(
        &self,
        reference: &Reference,
        architecture: Architecture,
        cache: &Cache,
    ) -> Result<Digest, PullError> {
        for mirror in mirrors(reference, self.access) {
            match self.fetch(&mirror, architecture, cache) {
                Err(PullError::Registry(error)) if error.concerns_server() => {
                    (self.report)(Event::Skipped(mirror.registry, error.to_string()));
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
    ) -> Result<Digest, PullError> {
        let client = Client::new(reference, self)?;
        let remote = Remote { client: &client, cache };
        let digest = remote.resolve(reference)?;
        (self.report)(Event::Pinned(digest));
        let chosen = oci::find(&remote, digest, architecture)?;
        layers::fetch(&client, cache, &chosen.manifest.layers, self)?;
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
pub struct Pulled {
    /// The digest that the name resolved to: of a manifest, or of an index.
    pub digest: Digest,
    /// A directory with `blobs/sha256`.
    pub blobs: PathBuf,
    /// The image's name in the registry, without a tag.
    pub repository: String,
    /// Prevents the blobs from being pruned until it is dropped.
    pub lock: Option<Lock>,
}

/// Documents from the cache, and from the registry if the cache does not have them yet.
struct Remote<'a> {
    client: &'a Client<'a>,
    cache: &'a Cache,
}

impl Remote<'_> {
    /// Resolves a reference to a digest. Its document is in the cache afterwards.
    fn resolve(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        if let Some(digest) = reference.digest {
            self.document(&digest, Role::Manifest)?;
            return Ok(digest);
        }
        let bytes = self.client.document(&self.client.manifest(&reference.target()), MAX_DOCUMENT)?;
        let digest = Digest::of(&bytes);
        self.cache.store_bytes(&digest, &bytes)?;
        Ok(digest)
    }

    /// Ensures that a document is in the cache.
    fn document(&self, digest: &Digest, role: Role) -> Result<(), RegistryError> {
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
            return Err(RegistryError::Digest { expected: *digest, found });
        }
        self.cache.store_bytes(digest, &bytes)
    }
}

impl Store for Remote<'_> {
    fn find(&self, digest: &Digest, role: Role) -> Result<Option<Blob>, OciError> {
        if role != Role::Layer {
            let path = || PathBuf::from(self.client.name());
            let at_host = |error| OciError::Host { path: path(), source: std::io::Error::other(error) };
            self.document(digest, role).map_err(at_host)?;
        }
        self.cache.layout().find(digest, role)
    }
}
