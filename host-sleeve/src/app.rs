//! An enclave image, as `run`, `inspect` and `measure` need it.
//!
//! Its law: its documents are read once and checked; its large parts are checked where they are copied.

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

use crate::error::{Doing, Error, Result};

/// What to do about an image that cannot be used.
const AGAIN: &str = "`host-sleeve build` makes an enclave image; one that is damaged must be built again";

/// An enclave image that was opened.
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
    /// What `build` writes.
    Artifact(Artifact),
    /// One file for AWS Nitro.
    Eif(Box<EifFile>),
}

/// A file for AWS Nitro that was read once and is sound.
#[derive(Clone, Debug)]
pub(crate) struct EifFile {
    path: PathBuf,
    file: Eif,
    content: Content,
    /// What it is.
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

    /// Where it lies, absolute.
    pub(crate) fn path(&self) -> &Path {
        match &self.source {
            Source::Artifact(artifact) => artifact.path(),
            Source::Eif(file) => &file.path,
        }
    }

    /// The digest that names it.
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
            Error::operator(format!("there is no enclave image at {}", path.display()))
                .because(error)
                .hint("`host-sleeve build` makes one")
        })?;
        if path.is_file() {
            return Ok(Self::Eif(Box::new(EifFile::open(&path)?)));
        }
        let artifact = Artifact::open(&path);
        artifact.map(Self::Artifact).map_err(|error| unusable(&path).because(error).hint(AGAIN))
    }

    /// The parts one by one, for machines that take no file for AWS Nitro.
    pub(crate) fn artifact(&self) -> Result<&Artifact> {
        match self {
            Self::Artifact(artifact) => Ok(artifact),
            Self::Eif(file) => {
                Err(Error::operator(format!("{} is for AWS Nitro machines alone", file.path.display()))
                    .hint("leave out --backend, or run the app.cloister it was made of"))
            }
        }
    }

    /// The kernel, into `out`.
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
    /// Reads the file at `path` once, to its end.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let blob = File::open(path).and_then(Blob::whole);
        let blob = blob.doing(|| format!("cannot read {}", path.display()))?;
        let opened = Eif::open(blob.content()).and_then(|file| Ok((eif::explain(&file)?, file)));
        let (explanation, file) = opened.map_err(|error| {
            unusable(path)
                .because(error)
                .hint("`host-sleeve build --eif` makes such a file; one that is damaged must be made again")
        })?;
        Ok(Self { path: path.to_owned(), file, content: blob.content(), explanation })
    }

    /// Copies the whole file; fails if it is not the one that was read before.
    pub(crate) fn copy(&self, out: &mut impl Write) -> Result<()> {
        let mut out = Hashed::new(out);
        io::copy(&mut self.content.reader(), &mut out)
            .doing(|| format!("cannot copy {}", self.path.display()))?;
        if out.digest() == self.explanation.digest {
            return Ok(());
        }
        Err(Error::operator(format!("{} was changed while it was read", self.path.display())))
    }

    /// The manifest in its last ramdisk: the measured one.
    fn manifest(&self) -> Result<Manifest> {
        let not_ours = || {
            Error::operator(format!("{} holds no application of Cloister", self.path.display())).hint(
                "`host-sleeve inspect` explains any enclave image file; only its own makes host-sleeve run",
            )
        };
        let ramdisk = self.section(Kind::Ramdisk, 1).ok_or_else(not_ours)?;
        let bytes = ramdisk::read_manifest(&ramdisk).map_err(|error| not_ours().because(error))?;
        let bytes = bytes.ok_or_else(not_ours)?;
        Manifest::from_json(&bytes).map_err(|error| not_ours().because(error))
    }

    /// The content of the section of this kind with this number among its like, from 0.
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

    /// An image of these parts; nothing in it boots.
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
    fn what_is_no_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = App::open(&dir.path().join("no-such.cloister")).unwrap_err();
        assert!(error.to_string().contains("no-such.cloister"));
        let error = App::open(dir.path()).unwrap_err();
        assert!(error.told().hint.as_deref().unwrap().contains("host-sleeve build"));
    }

    #[test]
    fn a_file_that_is_no_enclave_image_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.eif");
        std::fs::write(&path, "x".repeat(1000)).unwrap();
        let error = App::open(&path).unwrap_err();
        assert!(error.to_string().contains("app.eif"));
        assert!(error.reasons().concat().contains("`.eif`"), "{:?}", error.reasons());
    }
}
