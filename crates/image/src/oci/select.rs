//! Which image of several is meant.
//!
//! Its law: one fits, or it is an error that says what there is. Nothing is chosen by its place in a list, and what is no image
//! for containers stands in nobody's way.
//!
//! Of variants the one is taken that every machine of the architecture runs, as containerd takes it where it is told nothing
//! else (`platforms.Default` without a variant): an enclave image is measured once and starts wherever an operator starts
//! it, so the builder's processor says nothing. Who knows the processors can name a newer variant by its digest.

use std::collections::BTreeMap;

use super::layout::{Role, Store, document, verified};
use super::model::{Descriptor, Document, ImageConfig, ImageManifest, Index, media};
use super::{Architecture, Chosen, OciFault, names};
use crate::digest::Digest;

/// How deep indexes may lie in indexes. Real ones have two levels.
const MAX_DEPTH: usize = 4;
/// The most manifests that are looked at.
const MAX_MANIFESTS: usize = 1000;
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
type Found = BTreeMap<Digest, Candidate>;

/// An image that may be meant.
struct Candidate {
    manifest: ImageManifest,
    /// Whether its variant does not matter: the operator has named its digest.
    named: bool,
}

/// Chooses one image for `architecture` from an index.
pub fn choose(
    store: &impl Store,
    index: &Index,
    select: &Select,
    architecture: Architecture,
) -> Result<Chosen, OciFault> {
    let mut search = Search {
        store,
        architecture,
        found: Found::new(),
        other: Vec::new(),
        artifacts: Vec::new(),
        seen: 0,
    };
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

/// A platform as engines write it.
fn platform(os: &str, architecture: &str, variant: Option<&str>) -> String {
    let variant = variant.filter(|variant| !variant.is_empty()).map(|variant| format!("/{variant}"));
    format!("{os}/{architecture}{}", variant.unwrap_or_default())
}

fn named(index: &Index, name: &str) -> Result<Vec<Descriptor>, OciFault> {
    let fitting: Vec<_> = names::best(&index.manifests, name, names::of).into_iter().cloned().collect();
    if fitting.is_empty() {
        let first = |entry| names::of(entry).next().cloned();
        let available = index.manifests.iter().filter_map(first).collect();
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
    /// What else was passed over.
    artifacts: Vec<String>,
    seen: usize,
}

impl<S: Store> Search<'_, S> {
    fn digest(&mut self, digest: Digest) -> Result<(), OciFault> {
        let blob = self.store.find(&digest, Role::Manifest)?;
        let blob = blob.ok_or(OciFault::Missing { digest, what: Role::Manifest.name() })?;
        let bytes = verified(&blob, digest)?;
        self.document(digest, Document::parse_alone(&bytes)?, MAX_DEPTH, true)
    }

    fn document(
        &mut self,
        digest: Digest,
        document: Document,
        depth: usize,
        named: bool,
    ) -> Result<(), OciFault> {
        match document {
            Document::Index(index) => self.index(&index, depth),
            Document::Manifest(manifest) => {
                match manifest.artifact() {
                    Some(artifact) => self.artifacts.push(artifact.to_owned()),
                    None => drop(self.found.insert(digest, Candidate { manifest, named })),
                }
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
        let is_index = media::is_index(&descriptor.media_type);
        // What is no image need not even be there. Unknown types are to be passed over (OCI image specification, "Image
        // Index", `manifests`).
        if let Some(artifact) = artifact(descriptor).filter(|_| !attestation) {
            self.artifacts.push(artifact);
            return Ok(());
        }
        if attestation || !self.fits(descriptor) {
            return Ok(());
        }
        if is_index && depth == 0 {
            let fault =
                crate::limits::check("levels of indexes", crate::wide(MAX_DEPTH + 1), crate::wide(MAX_DEPTH));
            return fault.map_err(OciFault::Limit);
        }
        let bytes = document(self.store, descriptor, Role::Manifest)?;
        let parsed = Document::parse(&bytes, &descriptor.media_type)?;
        self.document(descriptor.digest, parsed, depth.saturating_sub(1), false)
    }

    /// Whether a descriptor may be for this machine: it says so, or says nothing.
    fn fits(&mut self, descriptor: &Descriptor) -> bool {
        let Some(said) = &descriptor.platform else { return true };
        let variant = said.variant.as_deref();
        let fits = said.os == "linux"
            && said.architecture == self.architecture.oci_name()
            && self.architecture.runs(variant);
        if !fits && said.os != "unknown" {
            self.other.push(platform(&said.os, &said.architecture, variant));
        }
        fits
    }

    /// Drops what turns out to be for another machine once its configuration is read, and takes the one that is left.
    fn finish(mut self) -> Result<Chosen, OciFault> {
        let mut images = Vec::new();
        for (digest, candidate) in std::mem::take(&mut self.found) {
            match Chosen::new(self.store, digest, candidate.manifest, self.architecture) {
                Ok(image) if candidate.named || self.runs(&image) => images.push(image),
                Ok(_) => {}
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
            (None, _) if self.other.is_empty() && !self.artifacts.is_empty() => {
                Err(OciFault::Artifact(self.artifacts))
            }
            (None, _) => {
                let wanted = format!("linux/{}", self.architecture.oci_name());
                Err(OciFault::Platform { wanted, available: self.other })
            }
        }
    }

    /// Whether a configuration asks for no more than every machine has.
    fn runs(&mut self, image: &Chosen) -> bool {
        let variant = image.config.variant.as_deref();
        let runs = self.architecture.runs(variant);
        if !runs {
            self.other.push(platform(&image.config.os, &image.config.architecture, variant));
        }
        runs
    }
}

/// What a descriptor says it is, if that is no image and no index. The artifact type of an image is the media type of its
/// configuration (OCI image specification, "Content Descriptors"), and some indexes say it.
fn artifact(descriptor: &Descriptor) -> Option<String> {
    let kind = &descriptor.media_type;
    let known = media::is_index(kind) || media::is_manifest(kind);
    let says = || descriptor.artifact_type.as_ref().filter(|artifact| !media::is_config(artifact));
    let artifact = if known { says()? } else { kind };
    Some(artifact.chars().take(200).collect())
}
