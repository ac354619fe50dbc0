//! Reads an artifact.
//!
//! Invariant: bytes are returned with their digest checked, or are followed by an error.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cloister_manifest::Manifest;
use serde::de::DeserializeOwned;

use super::{ARTIFACT_TYPE, ArtifactError, BuildRecord, Part, REQUIRED, UNPACKED, host};
use crate::digest::{BackgroundHash, Digest};
use crate::limits::MAX_DOCUMENT;
use crate::oci::{Blob, Descriptor, Document, ImageManifest, Layout, OciError, Role, Store};
use crate::ramdisk::OsRelease;

/// An artifact with valid documents and all required parts.
#[derive(Clone, Debug)]
pub struct Artifact {
    path: PathBuf,
    layout: Layout,
    digest: Digest,
    parts: BTreeMap<Part, Descriptor>,
}

impl Artifact {
    /// Opens the artifact at `path`. This checks that its parts exist with the right sizes; their digests are checked
    /// when they are read.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let in_layout = |error| ArtifactError::Layout { path: path.to_owned(), error };
        let layout = Layout::open(path).map_err(in_layout)?;
        let (digest, manifest) = enclave(&layout).map_err(in_layout)?.ok_or_else(|| {
            // It is a layout, since it was opened.
            ArtifactError::NotAnEnclave(path.to_owned())
        })?;
        let named = |layer: &Descriptor| Some((Part::of_media_type(&layer.media_type)?, layer.clone()));
        let parts: BTreeMap<Part, Descriptor> = manifest.layers.iter().filter_map(named).collect();
        let artifact = Self { path: path.to_owned(), layout, digest, parts };
        for part in REQUIRED {
            artifact.blob(part)?;
        }
        Ok(artifact)
    }

    /// The manifest's digest, which identifies this build.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its parts with their digests and sizes.
    pub fn parts(&self) -> impl Iterator<Item = (Part, Digest, u64)> + '_ {
        self.parts.iter().map(|(part, descriptor)| (*part, descriptor.digest, descriptor.size))
    }

    /// The size of a part in bytes; 0 if it is missing.
    #[must_use]
    pub fn size(&self, part: Part) -> u64 {
        self.parts.get(&part).map_or(0, |descriptor| descriptor.size)
    }

    /// The unpacked size of a part in bytes: its annotation, or its stored size if it has none.
    #[must_use]
    pub fn unpacked(&self, part: Part) -> u64 {
        let annotated = || self.parts.get(&part)?.annotations.as_ref()?.get(UNPACKED)?.parse().ok();
        annotated().unwrap_or_else(|| self.size(part))
    }

    /// Copies a part and checks its digest. On an error the written data must be discarded.
    pub fn copy(&self, part: Part, out: &mut impl Write) -> Result<(), ArtifactError> {
        let (blob, expected) = self.blob(part)?;
        let mut reader = blob.reader();
        let place = self.layout.path(&expected);
        let mut hash = BackgroundHash::start().map_err(host("hashed", &place))?;
        loop {
            let mut buffer = hash.buffer().map_err(host("hashed", &place))?;
            let count = reader.read(&mut buffer).map_err(host("read", &place))?;
            if count == 0 {
                break;
            }
            out.write_all(buffer.get(..count).unwrap_or_default()).map_err(host("copied", &place))?;
            hash.pass(buffer, count).map_err(host("hashed", &place))?;
        }
        let found = hash.finish().map_err(host("hashed", &place))?;
        if found == expected {
            return Ok(());
        }
        Err(ArtifactError::Changed { path: self.path.clone(), title: part.title(), expected, found })
    }

    /// The bytes of a part, unchecked: for readers that treat them as hostile.
    pub(super) fn part(&self, part: Part) -> Result<Blob, ArtifactError> {
        Ok(self.blob(part)?.0)
    }

    /// Checks the digest of every part.
    pub fn verify(&self) -> Result<(), ArtifactError> {
        self.parts.keys().try_for_each(|part| self.copy(*part, &mut io::sink()))
    }

    /// The canonical manifest.
    pub fn manifest(&self) -> Result<Manifest, ArtifactError> {
        self.json(Part::Manifest)
    }

    /// The build record.
    pub fn build_record(&self) -> Result<BuildRecord, ArtifactError> {
        self.json(Part::BuildRecord)
    }

    /// The record of the operating system's release in it.
    pub fn os_release(&self) -> Result<OsRelease, ArtifactError> {
        self.json(Part::OsRelease)
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> Result<String, ArtifactError> {
        Ok(String::from_utf8_lossy(&self.document(Part::CommandLine)?).into_owned())
    }

    /// A part that is a document, in memory.
    pub fn document(&self, part: Part) -> Result<Vec<u8>, ArtifactError> {
        let size = self.size(part);
        let limit = crate::limits::check("bytes of a document", size, MAX_DOCUMENT);
        let in_layout =
            |error| ArtifactError::Layout { path: self.path.clone(), error: OciError::Limit(error) };
        limit.map_err(in_layout)?;
        let mut bytes = Vec::new();
        self.copy(part, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, part: Part) -> Result<T, ArtifactError> {
        let error = |source| ArtifactError::Document { path: self.path.clone(), title: part.title(), source };
        serde_json::from_slice(&self.document(part)?).map_err(error)
    }

    fn blob(&self, part: Part) -> Result<(Blob, Digest), ArtifactError> {
        let missing = || ArtifactError::NoPart { path: self.path.clone(), title: part.title() };
        let descriptor = self.parts.get(&part).ok_or_else(missing)?;
        let in_layout = |error| ArtifactError::Layout { path: self.path.clone(), error };
        let blob =
            self.layout.find(&descriptor.digest, Role::Layer).map_err(in_layout)?.ok_or_else(missing)?;
        if blob.len() != descriptor.size {
            let (digest, expected, found) = (descriptor.digest, descriptor.size, blob.len());
            return Err(in_layout(OciError::Size { digest, expected, found }));
        }
        Ok((blob, descriptor.digest))
    }
}

/// The enclave in a layout that contains exactly one.
fn enclave(layout: &Layout) -> Result<Option<(Digest, ImageManifest)>, OciError> {
    let index = layout.index()?;
    let is_ours = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(ARTIFACT_TYPE);
    let mut ours = index.manifests.iter().filter(is_ours);
    let (Some(entry), None) = (ours.next(), ours.next()) else { return Ok(None) };
    let bytes = crate::oci::read_document(layout, entry, Role::Manifest)?;
    match Document::parse(&bytes, &entry.media_type)? {
        Document::Manifest(manifest) if manifest.artifact_type.as_deref() == Some(ARTIFACT_TYPE) => {
            Ok(Some((entry.digest, manifest)))
        }
        _ => Ok(None),
    }
}
