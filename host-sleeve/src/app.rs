//! An enclave image, as `run` and `inspect` need it.
//!
//! Its law: its documents are read once and checked; its large parts are checked where they are copied.

use std::path::Path;

use cloister_image::artifact::{Artifact, ArtifactFault};
use cloister_manifest::Manifest;

use crate::error::{Error, Result};

/// An enclave image that was opened.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Its parts.
    pub(crate) artifact: Artifact,
    /// Its manifest.
    pub(crate) manifest: Manifest,
    /// The measured command line.
    pub(crate) cmdline: String,
}

impl App {
    /// Opens the image at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            Error::operator(format!("there is no enclave image at {}", path.display()))
                .because(error)
                .hint("`host-sleeve build` makes one")
        })?;
        Self::read(&path).map_err(|error| {
            Error::operator(format!("{} cannot be used", path.display()))
                .because(error)
                .hint("`host-sleeve build` makes an enclave image; one that is damaged must be built again")
        })
    }

    fn read(path: &Path) -> Result<Self, ArtifactFault> {
        let artifact = Artifact::open(path)?;
        Ok(Self { manifest: artifact.manifest()?, cmdline: artifact.command_line()?, artifact })
    }

    /// Where it lies, absolute.
    pub(crate) fn path(&self) -> &Path {
        self.artifact.path()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cloister_image::artifact::{Part, Writer};

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
}
