//! Selects one image of several.
//!
//! Invariant: exactly one image matches, or the error lists the available ones. No image is selected by its position in
//! a list, and artifacts that are not container images are ignored.
//!
//! Of several variants, the one that runs on every machine of the architecture is selected, as containerd does by
//! default (`platforms.Default` without a variant): an enclave image is measured once and may start on any machine, so
//! the builder's processor is irrelevant. An operator who knows the processors can select a newer variant by its
//! digest.

use std::collections::BTreeMap;

use super::layout::{Role, Store, document, verified};
use super::model::{Descriptor, Document, ImageConfig, ImageManifest, Index, media};
use super::{Architecture, Chosen, OciError, names};
use crate::digest::Digest;

/// Maximum nesting of indexes. Real ones have two levels.
const MAX_DEPTH: usize = 4;
/// Maximum number of manifests that are examined.
const MAX_MANIFESTS: usize = 1000;
/// The annotation with which builders mark attestations of an image.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// The operator's selection.
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

/// An image that may be selected.
struct Candidate {
    manifest: ImageManifest,
    /// Whether the operator has given its digest: its variant is then not checked.
    named: bool,
}

/// Selects one image for `architecture` from an index.
pub fn choose(
    store: &impl Store,
    index: &Index,
    select: &Select,
    architecture: Architecture,
) -> Result<Chosen, OciError> {
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

/// Refuses a configuration for another platform.
pub(super) fn check_platform(config: &ImageConfig, architecture: Architecture) -> Result<(), OciError> {
    if config.os == "linux" && config.architecture == architecture.oci_name() {
        return Ok(());
    }
    let available = vec![format!("{}/{}", config.os, config.architecture)];
    Err(OciError::Platform { wanted: format!("linux/{}", architecture.oci_name()), available })
}

/// A platform in the notation of engines.
fn platform(os: &str, architecture: &str, variant: Option<&str>) -> String {
    let variant = variant.filter(|variant| !variant.is_empty()).map(|variant| format!("/{variant}"));
    format!("{os}/{architecture}{}", variant.unwrap_or_default())
}

fn named(index: &Index, name: &str) -> Result<Vec<Descriptor>, OciError> {
    let fitting: Vec<_> = names::best(&index.manifests, name, names::of).into_iter().cloned().collect();
    if fitting.is_empty() {
        let first = |entry| names::of(entry).next().cloned();
        let available = index.manifests.iter().filter_map(first).collect();
        return Err(OciError::Name { wanted: name.to_owned(), available });
    }
    Ok(fitting)
}

struct Search<'a, S> {
    store: &'a S,
    architecture: Architecture,
    found: Found,
    /// Platforms that were skipped.
    other: Vec<String>,
    /// Artifacts that were skipped.
    artifacts: Vec<String>,
    seen: usize,
}

impl<S: Store> Search<'_, S> {
    fn digest(&mut self, digest: Digest) -> Result<(), OciError> {
        let blob = self.store.find(&digest, Role::Manifest)?;
        let blob = blob.ok_or(OciError::Missing { digest, what: Role::Manifest.name() })?;
        let bytes = verified(&blob, digest)?;
        self.document(digest, Document::parse_alone(&bytes)?, MAX_DEPTH, true)
    }

    fn document(
        &mut self,
        digest: Digest,
        document: Document,
        depth: usize,
        named: bool,
    ) -> Result<(), OciError> {
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

    fn index(&mut self, index: &Index, depth: usize) -> Result<(), OciError> {
        for descriptor in &index.manifests {
            self.seen += 1;
            let limit = crate::limits::check("manifests", crate::wide(self.seen), crate::wide(MAX_MANIFESTS));
            limit.map_err(OciError::Limit)?;
            self.descriptor(descriptor, depth)?;
        }
        Ok(())
    }

    fn descriptor(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), OciError> {
        let attestation = descriptor.annotations.as_ref().is_some_and(|all| all.contains_key(ATTESTATION));
        let is_index = media::is_index(&descriptor.media_type);
        // The blobs of artifacts need not exist. Unknown types must be ignored (OCI image specification, "Image Index",
        // `manifests`).
        if let Some(artifact) = artifact(descriptor).filter(|_| !attestation) {
            self.artifacts.push(artifact);
            return Ok(());
        }
        if attestation || !self.fits(descriptor) {
            return Ok(());
        }
        if is_index && depth == 0 {
            let error =
                crate::limits::check("levels of indexes", crate::wide(MAX_DEPTH + 1), crate::wide(MAX_DEPTH));
            return error.map_err(OciError::Limit);
        }
        let bytes = document(self.store, descriptor, Role::Manifest)?;
        let parsed = Document::parse(&bytes, &descriptor.media_type)?;
        self.document(descriptor.digest, parsed, depth.saturating_sub(1), false)
    }

    /// Whether a descriptor may be for this platform: it states so, or states no platform.
    fn fits(&mut self, descriptor: &Descriptor) -> bool {
        let Some(stated) = &descriptor.platform else { return true };
        let variant = stated.variant.as_deref();
        let fits = stated.os == "linux"
            && stated.architecture == self.architecture.oci_name()
            && self.architecture.runs(variant);
        if !fits && stated.os != "unknown" {
            self.other.push(platform(&stated.os, &stated.architecture, variant));
        }
        fits
    }

    /// Drops images whose configuration is for another platform, and returns the remaining one.
    fn finish(mut self) -> Result<Chosen, OciError> {
        let mut images = Vec::new();
        for (digest, candidate) in std::mem::take(&mut self.found) {
            match Chosen::new(self.store, digest, candidate.manifest, self.architecture) {
                Ok(image) if candidate.named || self.runs(&image) => images.push(image),
                Ok(_) => {}
                Err(OciError::Platform { available, .. }) => self.other.extend(available),
                Err(error) => return Err(error),
            }
        }
        match (images.pop(), images.is_empty()) {
            (Some(image), true) => Ok(image),
            (Some(last), false) => {
                let all = images.iter().chain([&last]);
                Err(OciError::Ambiguous(all.map(|image| image.digest.to_string()).collect()))
            }
            (None, _) if self.other.is_empty() && !self.artifacts.is_empty() => {
                Err(OciError::Artifact(self.artifacts))
            }
            (None, _) => {
                let wanted = format!("linux/{}", self.architecture.oci_name());
                Err(OciError::Platform { wanted, available: self.other })
            }
        }
    }

    /// Whether the image runs on every machine of the architecture.
    fn runs(&mut self, image: &Chosen) -> bool {
        let variant = image.config.variant.as_deref();
        let runs = self.architecture.runs(variant);
        if !runs {
            self.other.push(platform(&image.config.os, &image.config.architecture, variant));
        }
        runs
    }
}

/// The stated type of a descriptor that is neither an image nor an index. The artifact type of an image is the media
/// type of its configuration (OCI image specification, "Content Descriptors"), and some indexes state it.
fn artifact(descriptor: &Descriptor) -> Option<String> {
    let kind = &descriptor.media_type;
    let known = media::is_index(kind) || media::is_manifest(kind);
    let stated = || descriptor.artifact_type.as_ref().filter(|artifact| !media::is_config(artifact));
    let artifact = if known { stated()? } else { kind };
    Some(artifact.chars().take(200).collect())
}
