//! Which image of several is meant.
//!
//! Its law: one fits, or it is an error that says what there is. Nothing is chosen by its place in a list.

use std::collections::BTreeMap;

use super::layout::{Role, Store, document, verified};
use super::model::{Descriptor, Document, ImageConfig, ImageManifest, Index, media};
use super::{Architecture, Chosen, OciFault};
use crate::digest::Digest;

/// How deep indexes may lie in indexes. Real ones have two levels.
const MAX_DEPTH: usize = 4;
/// The most manifests that are looked at.
const MAX_MANIFESTS: usize = 1000;
/// The annotation under which a layout names its images.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which builders mark what is about an image and is none.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// What an operator asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The only one.
    #[default]
    Only,
    /// The one of this name or tag.
    Name(String),
    /// The one of this digest, or the one in the index of this digest.
    Digest(Digest),
}

/// Candidates by digest: the same image under two names is one image.
type Found = BTreeMap<Digest, ImageManifest>;

/// Chooses one image for `architecture` from an index.
pub fn choose(
    store: &impl Store,
    index: &Index,
    select: &Select,
    architecture: Architecture,
) -> Result<Chosen, OciFault> {
    let mut search = Search { store, architecture, found: Found::new(), other: Vec::new(), seen: 0 };
    match select {
        Select::Only => search.index(index, MAX_DEPTH)?,
        Select::Name(name) => {
            let named = Index { manifests: named(index, name)?, ..index.clone() };
            search.index(&named, MAX_DEPTH)?;
        }
        Select::Digest(digest) => search.digest(*digest)?,
    }
    search.finish()
}

/// Refuses a configuration of another machine.
pub(super) fn check_platform(config: &ImageConfig, architecture: Architecture) -> Result<(), OciFault> {
    if config.os == "linux" && config.architecture == architecture.oci_name() {
        return Ok(());
    }
    let available = vec![format!("{}/{}", config.os, config.architecture)];
    Err(OciFault::Platform { wanted: format!("linux/{}", architecture.oci_name()), available })
}

fn named(index: &Index, name: &str) -> Result<Vec<Descriptor>, OciFault> {
    let name_of = |entry: &Descriptor| entry.annotations.as_ref().and_then(|all| all.get(NAME)).cloned();
    let fitting: Vec<_> =
        index.manifests.iter().filter(|entry| name_of(entry).as_deref() == Some(name)).cloned().collect();
    if fitting.is_empty() {
        let available = index.manifests.iter().filter_map(name_of).collect();
        return Err(OciFault::Name { wanted: name.to_owned(), available });
    }
    Ok(fitting)
}

struct Search<'a, S> {
    store: &'a S,
    architecture: Architecture,
    found: Found,
    /// Platforms that were passed over.
    other: Vec<String>,
    seen: usize,
}

impl<S: Store> Search<'_, S> {
    fn digest(&mut self, digest: Digest) -> Result<(), OciFault> {
        let blob = self.store.find(&digest, Role::Manifest)?;
        let blob = blob.ok_or(OciFault::Missing { digest, what: Role::Manifest.name() })?;
        let bytes = verified(&blob, digest)?;
        self.document(digest, Document::parse_alone(&bytes)?, MAX_DEPTH)
    }

    fn document(&mut self, digest: Digest, document: Document, depth: usize) -> Result<(), OciFault> {
        match document {
            Document::Index(index) => self.index(&index, depth),
            Document::Manifest(manifest) => {
                self.found.insert(digest, manifest);
                Ok(())
            }
        }
    }

    fn index(&mut self, index: &Index, depth: usize) -> Result<(), OciFault> {
        for descriptor in &index.manifests {
            self.seen += 1;
            let limit = crate::limits::check("manifests", crate::wide(self.seen), crate::wide(MAX_MANIFESTS));
            limit.map_err(OciFault::Limit)?;
            self.descriptor(descriptor, depth)?;
        }
        Ok(())
    }

    fn descriptor(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), OciFault> {
        let attestation = descriptor.annotations.as_ref().is_some_and(|all| all.contains_key(ATTESTATION));
        if attestation || !self.fits(descriptor) {
            return Ok(());
        }
        let is_index = media::is_index(&descriptor.media_type);
        if is_index && depth == 0 {
            let fault =
                crate::limits::check("levels of indexes", crate::wide(MAX_DEPTH + 1), crate::wide(MAX_DEPTH));
            return fault.map_err(OciFault::Limit);
        }
        let bytes = document(self.store, descriptor, Role::Manifest)?;
        let parsed = Document::parse(&bytes, &descriptor.media_type)?;
        self.document(descriptor.digest, parsed, depth.saturating_sub(1))
    }

    /// Whether a descriptor may be for this machine: it says so, or says nothing.
    fn fits(&mut self, descriptor: &Descriptor) -> bool {
        let Some(platform) = &descriptor.platform else { return true };
        let fits = platform.os == "linux" && platform.architecture == self.architecture.oci_name();
        if !fits && platform.os != "unknown" {
            self.other.push(format!("{}/{}", platform.os, platform.architecture));
        }
        fits
    }

    /// Drops what turns out to be for another machine once its configuration is read, and takes the one that is left.
    fn finish(mut self) -> Result<Chosen, OciFault> {
        let mut images = Vec::new();
        for (digest, manifest) in std::mem::take(&mut self.found) {
            match Chosen::new(self.store, digest, manifest, self.architecture) {
                Ok(image) => images.push(image),
                Err(OciFault::Platform { available, .. }) => self.other.extend(available),
                Err(fault) => return Err(fault),
            }
        }
        match (images.pop(), images.is_empty()) {
            (Some(image), true) => Ok(image),
            (Some(last), false) => {
                let all = images.iter().chain([&last]);
                Err(OciFault::Ambiguous(all.map(|image| image.digest.to_string()).collect()))
            }
            (None, _) => {
                let wanted = format!("linux/{}", self.architecture.oci_name());
                Err(OciFault::Platform { wanted, available: self.other })
            }
        }
    }
}
