//! Enclave images, as read by `run`, `inspect` and `measure`.
//!
//! Invariant: the documents are read once and verified; the large parts are verified when they are copied.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloister_image::artifact::{Artifact, Part};
use cloister_image::digest::{Digest, Hashed};
use cloister_image::eif::{self, Eif, Explanation, Kind};
use cloister_image::oci::Blob;
use cloister_image::ramdisk;
use cloister_image::tree::Content;
use cloister_manifest::Manifest;

use crate::error::{Error, ErrorContext, Result};

/// The hint for an unusable image.
const AGAIN: &str = "`host-sleeve build` creates an enclave image; a damaged one must be built again";

/// An open enclave image.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Where its parts are.
    pub(crate) source: Source,
    /// Its manifest.
    pub(crate) manifest: Manifest,
    /// The measured command line.
    pub(crate) cmdline: String,
}

/// The form of an enclave image.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The directory that `build` writes.
    Artifact(Artifact),
    /// One file for AWS Nitro.
    Eif(Box<EifFile>),
}

/// A file for AWS Nitro that was read once and verified.
#[derive(Clone, Debug)]
pub(crate) struct EifFile {
    path: PathBuf,
    file: Eif,
    content: Content,
    /// Its contents, explained.
    pub(crate) explanation: Explanation,
}

impl App {
    /// Opens the image at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let (manifest, cmdline) = match &source {
            Source::Artifact(artifact) => {
                let documents =
                    artifact.manifest().and_then(|manifest| Ok((manifest, artifact.command_line()?)));
                documents.map_err(|error| unusable(path).because(error).hint(AGAIN))?
            }
            Source::Eif(file) => (file.manifest()?, file.explanation.command_line.clone()),
        };
        Ok(Self { source, manifest, cmdline })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        match &self.source {
            Source::Artifact(artifact) => artifact.path(),
            Source::Eif(file) => &file.path,
        }
    }

    /// The digest that identifies it.
    pub(crate) fn digest(&self) -> Digest {
        match &self.source {
            Source::Artifact(artifact) => artifact.digest(),
            Source::Eif(file) => file.explanation.digest,
        }
    }
}

impl Source {
    /// Opens the image at `path`: a directory, or a file for AWS Nitro.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            Error::operator(format!("no enclave image at {}", path.display()))
                .because(error)
                .hint("`host-sleeve build` creates one")
        })?;
        if path.is_file() {
            return Ok(Self::Eif(Box::new(EifFile::open(&path)?)));
        }
        let artifact = Artifact::open(&path);
        artifact.map(Self::Artifact).map_err(|error| unusable(&path).because(error).hint(AGAIN))
    }

    /// The separate parts, for machines that do not boot a file for AWS Nitro.
    pub(crate) fn artifact(&self) -> Result<&Artifact> {
        match self {
            Self::Artifact(artifact) => Ok(artifact),
            Self::Eif(file) => {
                Err(Error::operator(format!("{} boots on AWS Nitro machines only", file.path.display()))
                    .hint("omit --backend, or run the app.cloister it was built from"))
            }
        }
    }

    /// Copies the kernel to `out`.
    pub(crate) fn copy_kernel(&self, out: &mut impl Write) -> Result<()> {
        let damaged = |path: &Path| unusable(path).hint("the image is damaged: build it again");
        match self {
            Self::Artifact(artifact) => {
                artifact.copy(Part::Kernel, out).map_err(|error| damaged(artifact.path()).because(error))
            }
            Self::Eif(file) => {
                let copied = file.section(Kind::Kernel, 0).map(|kernel| io::copy(&mut kernel.reader(), out));
                match copied {
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(damaged(&file.path).because(error)),
                    None => Err(damaged(&file.path)),
                }
            }
        }
    }
}

impl EifFile {
    /// Reads the whole file at `path`, once.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let blob = File::open(path).and_then(Blob::whole);
        let blob = blob.context(|| format!("cannot read {}", path.display()))?;
        let opened = Eif::open(blob.content()).and_then(|file| Ok((eif::explain(&file)?, file)));
        let (explanation, file) = opened.map_err(|error| {
            unusable(path)
                .because(error)
                .hint("`host-sleeve build --eif` creates such a file; a damaged one must be built again")
        })?;
        Ok(Self { path: path.to_owned(), file, content: blob.content(), explanation })
    }

    /// Copies the whole file; fails if it has changed since it was opened.
    pub(crate) fn copy(&self, out: &mut impl Write) -> Result<()> {
        let mut out = Hashed::new(out);
        io::copy(&mut self.content.reader(), &mut out)
            .context(|| format!("cannot copy {}", self.path.display()))?;
        if out.digest() == self.explanation.digest {
            return Ok(());
        }
        Err(Error::operator(format!("{} changed while it was being read", self.path.display())))
    }

    /// The measured manifest, from its last ramdisk.
    fn manifest(&self) -> Result<Manifest> {
        let not_ours = || {
            Error::operator(format!("{} contains no Cloister application", self.path.display())).hint(
                "`host-sleeve inspect` explains any enclave image file; `host-sleeve run` boots only those that it built",
            )
        };
        let ramdisk = self.section(Kind::Ramdisk, 1).ok_or_else(not_ours)?;
        let bytes = ramdisk::read_manifest(&ramdisk).map_err(|error| not_ours().because(error))?;
        let bytes = bytes.ok_or_else(not_ours)?;
        Manifest::from_json(&bytes).map_err(|error| not_ours().because(error))
    }

    /// The content of section `number` of this kind, counted from 0.
    pub(crate) fn section(&self, kind: Kind, number: usize) -> Option<Content> {
        let section = self.file.sections().iter().filter(|section| section.kind == kind).nth(number)?;
        self.file.content(section).ok()
    }
}

fn unusable(path: &Path) -> Error {
    Error::operator(format!("{} cannot be used", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cloister_image::artifact::Writer;

    /// An image of these parts, which does not boot.
    pub(crate) fn write_image(path: &Path, kernel: &[u8], os: &[u8], app: &[u8]) -> Artifact {
        let mut writer = Writer::new(path).unwrap();
        let parts = [(Part::Kernel, kernel), (Part::OsRamdisk, os), (Part::AppRamdisk, app)];
        let documents = [Part::CommandLine, Part::Manifest, Part::OsRelease, Part::BuildRecord];
        for (part, bytes) in parts.into_iter().chain(documents.map(|part| (part, b"{}".as_slice()))) {
            writer.bytes(part, bytes).unwrap();
        }
        writer.finish().unwrap();
        Artifact::open(path).unwrap()
    }

    #[test]
    fn a_path_without_an_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = App::open(&dir.path().join("no-such.cloister")).unwrap_err();
        assert!(error.to_string().contains("no-such.cloister"));
        let error = App::open(dir.path()).unwrap_err();
        assert!(error.details().hint.as_deref().unwrap().contains("host-sleeve build"));
    }

    #[test]
    fn a_file_that_is_not_an_enclave_image_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.eif");
        std::fs::write(&path, "x".repeat(1000)).unwrap();
        let error = App::open(&path).unwrap_err();
        assert!(error.to_string().contains("app.eif"));
        assert!(error.reasons().concat().contains("`.eif`"), "{:?}", error.reasons());
    }
}
