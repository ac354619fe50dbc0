//! Writes an artifact under a temporary name, and renames it when it is complete.
//!
//! Invariant: until the rename, the artifact's path is untouched, and after any error nothing is left behind. A
//! finished artifact can be read before it is renamed, and the rename can be undone.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{ARTIFACT_TYPE, Artifact, ArtifactError, Output, Part, UNPACKED, host};
use crate::digest::{Digest, Hashed};
use crate::oci::{Blob, Descriptor, ImageManifest, Index, media};
use crate::swap::{self, Before};
use crate::tree::Content;

/// The annotation with the file name for a part (OCI image specification, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// The content of `oci-layout`, which marks a directory as an image layout.
const MARK: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// A complete artifact that may still have its temporary name. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct Finished {
    path: PathBuf,
    work: TempDir,
    digest: Digest,
    placed: Option<Before>,
}

/// An artifact that is being written.
#[derive(Debug)]
pub struct Writer {
    /// The final path of the artifact.
    path: PathBuf,
    /// The working directory, removed on drop.
    work: TempDir,
    parts: BTreeMap<Part, Descriptor>,
}

impl Writer {
    /// Starts an artifact for `path`. An existing artifact stays there until the new one is published.
    pub fn new(path: &Path) -> Result<Self, ArtifactError> {
        if path.symlink_metadata().is_ok() {
            Artifact::open(path).map_err(|_| ArtifactError::Occupied(path.to_owned()))?;
        }
        let parent = parent(path);
        let work = tempfile::Builder::new()
            .prefix(".cloister-")
            .tempdir_in(parent)
            .map_err(host("written", parent))?;
        let blobs = work.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(host("written", &blobs))?;
        Ok(Self { path: path.to_owned(), work, parts: BTreeMap::new() })
    }

    /// A directory for temporary files of this artifact, on the same file system.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.work.path()
    }

    /// Adds a part from memory.
    pub fn bytes(&mut self, part: Part, bytes: &[u8]) -> Result<Output, ArtifactError> {
        let error = host("written", &self.path);
        self.stream(part, |out| out.write_all(bytes).map_err(error))
    }

    /// Adds a part from a file. Read errors are converted by `unread`, since the artifact's path is not their cause.
    pub fn file<E: From<ArtifactError>>(
        &mut self,
        part: Part,
        path: &Path,
        unread: impl Fn(io::Error) -> E,
    ) -> Result<Output, E> {
        let mut file = File::open(path).map_err(&unread)?;
        let target = self.path.clone();
        self.stream(part, |out| {
            let mut buffer = vec![0; 128 * 1024];
            loop {
                let count = file.read(&mut buffer).map_err(&unread)?;
                if count == 0 {
                    return Ok(());
                }
                out.write_all(buffer.get(..count).unwrap_or_default()).map_err(host("written", &target))?;
            }
        })
    }

    /// Adds a part that `write` writes.
    pub fn stream<E: From<ArtifactError>>(
        &mut self,
        part: Part,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Output, E> {
        let work = self.work.path().join("part");
        let file = File::create(&work).map_err(host("written", &self.path))?;
        let mut out = Hashed::new(io::BufWriter::with_capacity(128 * 1024, file));
        write(&mut out)?;
        let output = self.keep(out, &work)?;
        let annotations = BTreeMap::from([(TITLE.to_owned(), part.title().to_owned())]);
        let descriptor = descriptor(part.media_type(), output, Some(annotations));
        self.parts.insert(part, descriptor);
        Ok(output)
    }

    /// Records the unpacked size of a part in bytes, from which a launcher computes the memory that an enclave needs.
    pub fn unpacks_to(&mut self, part: Part, bytes: u64) {
        if let Some(annotations) = self.parts.get_mut(&part).and_then(|blob| blob.annotations.as_mut()) {
            annotations.insert(UNPACKED.to_owned(), bytes.to_string());
        }
    }

    /// The content of a part that has been added.
    pub fn content(&self, part: Part) -> Result<Content, ArtifactError> {
        let missing = || ArtifactError::NoPart { path: self.path.clone(), title: part.title() };
        let digest = self.parts.get(&part).ok_or_else(missing)?.digest;
        let path = self.work.path().join("blobs/sha256").join(digest.hex());
        let blob = File::open(&path).and_then(Blob::whole).map_err(host("read", &path))?;
        Ok(blob.content())
    }

    /// The parts added so far.
    #[must_use]
    pub fn outputs(&self) -> BTreeMap<String, Output> {
        let entry = |(part, blob): (&Part, &Descriptor)| {
            (part.title().to_owned(), Output { digest: blob.digest, size: blob.size })
        };
        self.parts.iter().map(entry).collect()
    }

    /// Seals the artifact and publishes it. Returns the manifest's digest, which identifies this build.
    pub fn finish(self) -> Result<Digest, ArtifactError> {
        let mut finished = self.seal()?;
        finished.publish()?;
        Ok(finished.digest())
    }

    /// Writes the documents that list the parts, and makes everything durable.
    pub fn seal(mut self) -> Result<Finished, ArtifactError> {
        let empty = self.document(b"{}")?;
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config: descriptor(media::EMPTY, empty, None),
            layers: self.parts.values().cloned().collect(),
            annotations: None,
        };
        let output = self.document(&self.json(&manifest)?)?;
        let mut entry = descriptor(media::MANIFEST, output, None);
        entry.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        let index =
            Index { schema_version: 2, media_type: Some(media::INDEX.to_owned()), manifests: vec![entry] };
        let index = self.json(&index)?;
        self.plain_file("index.json", &index)?;
        self.plain_file("oci-layout", MARK)?;
        self.settle()?;
        Ok(Finished { path: self.path, work: self.work, digest: output.digest, placed: None })
    }

    fn document(&mut self, bytes: &[u8]) -> Result<Output, ArtifactError> {
        let work = self.work.path().join("part");
        let file = File::create(&work).map_err(host("written", &self.path))?;
        let mut out = Hashed::new(io::BufWriter::new(file));
        out.write_all(bytes).map_err(host("written", &self.path))?;
        self.keep(out, &work)
    }

    /// Makes a finished file durable and renames it to its digest.
    fn keep(&self, out: Hashed<io::BufWriter<File>>, work: &Path) -> Result<Output, ArtifactError> {
        let size = out.count();
        let (buffered, digest) = out.finish();
        let settle = || {
            let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()?;
            std::fs::rename(work, self.work.path().join("blobs/sha256").join(digest.hex()))
        };
        settle().map_err(host("written", &self.path))?;
        Ok(Output { digest, size })
    }

    fn plain_file(&self, name: &str, bytes: &[u8]) -> Result<(), ArtifactError> {
        let write = || {
            let mut file = File::create(self.work.path().join(name))?;
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()
        };
        write().map_err(host("written", &self.path))
    }

    fn json(&self, document: &impl serde::Serialize) -> Result<Vec<u8>, ArtifactError> {
        let error = |source| ArtifactError::Document { path: self.path.clone(), title: "manifest", source };
        serde_json::to_vec(document).map_err(error)
    }

    /// Makes the directories durable.
    fn settle(&self) -> Result<(), ArtifactError> {
        let settle = |directory: &str| {
            let directory = self.work.path().join(directory);
            std::fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
            match File::open(&directory)?.sync_all() {
                // Some file systems cannot sync a directory, and do not need to.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                other => other,
            }
        };
        ["blobs/sha256", "blobs", ""].into_iter().try_for_each(settle).map_err(host("written", &self.path))
    }
}

impl Finished {
    /// The digest of its manifest, which identifies it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Opens the artifact at its current path.
    pub fn open(&self) -> Result<Artifact, ArtifactError> {
        Artifact::open(if self.placed.is_some() { &self.path } else { self.work.path() })
    }

    /// Renames it to its final path. An older artifact that was there is removed when this is dropped.
    pub fn publish(&mut self) -> Result<(), ArtifactError> {
        let placed = swap::place(self.work.path(), &self.path).map_err(host("written", &self.path))?;
        self.placed = Some(placed);
        Ok(())
    }

    /// Undoes [`Finished::publish`] and restores what was at the path before.
    pub fn take_back(&mut self) -> Result<(), ArtifactError> {
        let Some(before) = self.placed.take() else { return Ok(()) };
        swap::take_back(self.work.path(), &self.path, before).map_err(host("written", &self.path))
    }
}

fn descriptor(media_type: &str, output: Output, annotations: Option<BTreeMap<String, String>>) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: output.digest,
        size: output.size,
        artifact_type: None,
        platform: None,
        annotations,
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
