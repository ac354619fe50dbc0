//! Who must act on a failed build, and how.
//!
//! Invariant: the responsible person can do what the hint says. A full disk is never the image author's problem.

use super::BuildError;
use crate::artifact::ArtifactError;
use crate::cpio::WriteError;
use crate::directory::DirectoryError;
use crate::erofs;
use crate::layers::{EntryError, LayerError};
use crate::oci::OciError;

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responsible {
    /// The user who started the build: another path, name or option.
    Operator,
    /// The author of the image.
    Author,
    /// The administrator of this host: disk space, permissions, an installation.
    Host,
    /// The authors of Cloister: a bug.
    Cloister,
}

const PATHS: &str =
    "--image takes oci:DIR, oci-archive:FILE, docker-archive:FILE, docker://HOST/NAME or dir:DIR";
const AGAIN: &str = "fetch or copy the image again: it is damaged";
const SPACE: &str = "free disk space there, or point CLOISTER_CACHE to another disk";
const REPORT: &str = "report it: this is a bug in Cloister";
const READABLE: &str = "check that the file exists and that this user may read it";
const RELEASE: &str = "build the Cloister OS with ./scripts/build, or set CLOISTER_OS to its directory";

impl BuildError {
    /// Who must act, and a hint on how.
    #[must_use]
    pub fn responsibility(&self) -> (Responsible, &'static str) {
        match self {
            Self::Input { error, .. } => oci(error),
            Self::Layer { error, .. } => layer(error),
            Self::Directory { error, .. } => directory(error),
            Self::Manifest(_) => (Responsible::Cloister, REPORT),
            Self::Os { .. } | Self::NoNitro => (Responsible::Host, RELEASE),
            Self::Ramdisk(error) => ramdisk(error),
            Self::Erofs(error) => file_system(error),
            Self::Sign(_) => (Responsible::Operator, "give a P-384 key and its certificate"),
            Self::Artifact(error) => artifact(error),
            Self::Cancelled => (Responsible::Operator, "start it again"),
            Self::Scratch { .. } => (Responsible::Host, SPACE),
        }
    }
}

fn oci(error: &OciError) -> (Responsible, &'static str) {
    match error {
        OciError::NotALayout(_) | OciError::NotAnArchive { .. } => (Responsible::Operator, PATHS),
        OciError::Platform { .. } => (
            Responsible::Operator,
            "choose or build an image for this architecture; select one for newer processors (/v2, /v3) by its digest",
        ),
        OciError::Artifact(_) => (Responsible::Operator, "name the image that these artifacts belong to"),
        OciError::Name { .. } => (Responsible::Operator, "name one of them, as in oci:DIR:NAME"),
        OciError::Ambiguous(_) => {
            (Responsible::Operator, "name one of them, as in oci:DIR:NAME or oci:DIR@sha256:…")
        }
        OciError::Missing { .. } | OciError::Digest { .. } | OciError::Size { .. } => {
            (Responsible::Operator, AGAIN)
        }
        OciError::MediaType(_) => (
            Responsible::Author,
            "build the image with plain, gzip or zstd layers (not schema 1, not encrypted)",
        ),
        OciError::Document { .. } | OciError::AmbiguousDocument(_) | OciError::LayerCount { .. } => (
            Responsible::Author,
            "build the image with another tool: its documents violate the OCI specification",
        ),
        OciError::Limit(error) => (Responsible::Author, error.hint()),
        OciError::Unpack(error) => layer(error),
        OciError::Host { .. } => (Responsible::Host, READABLE),
    }
}

fn layer(error: &LayerError) -> (Responsible, &'static str) {
    match error {
        LayerError::Digest { .. } | LayerError::Damaged(_) | LayerError::Tar { .. } => {
            (Responsible::Operator, AGAIN)
        }
        LayerError::Compression(_) => (Responsible::Author, "compress the layer with gzip or zstd"),
        LayerError::Limit(error) => (Responsible::Author, error.hint()),
        LayerError::Entry { error, .. } => (Responsible::Author, entry(error)),
        LayerError::Blob(_) => (Responsible::Host, READABLE),
        LayerError::Scratch(_) => (Responsible::Host, SPACE),
    }
}

fn entry(error: &EntryError) -> &'static str {
    match error {
        EntryError::Traversal => "remove the file from the image: every name in it must be below its root",
        EntryError::DanglingHardLink(_) | EntryError::HardLinkTarget(_) => {
            "add the file that the hard link names before it, in this layer or a lower one"
        }
        _ => "correct this entry in the image, or fetch the image again in case it is damaged",
    }
}

fn directory(error: &DirectoryError) -> (Responsible, &'static str) {
    match error {
        DirectoryError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (Responsible::Operator, READABLE)
        }
        DirectoryError::Read { .. } => {
            (Responsible::Operator, "give dir: the root directory of a file system")
        }
        DirectoryError::Changed(_) => (Responsible::Operator, "build again when no process writes there"),
        DirectoryError::Entry { error, .. } => (Responsible::Author, entry(error)),
        DirectoryError::Limit(error) => (Responsible::Author, error.hint()),
        DirectoryError::Scratch(_) => (Responsible::Host, SPACE),
    }
}

fn ramdisk(error: &WriteError) -> (Responsible, &'static str) {
    match error {
        WriteError::TooLarge { .. } => (
            Responsible::Author,
            "make the application smaller: compressed, it must stay under 4 GiB, and under 3 GiB to run on microvm or 2 GiB on q35",
        ),
        WriteError::TooLong(_) => (Responsible::Author, "shorten the path"),
        WriteError::Read { .. } | WriteError::Write(_) => (Responsible::Host, SPACE),
    }
}

fn file_system(error: &erofs::Error) -> (Responsible, &'static str) {
    match error {
        // The tree that layers are applied to has these properties by construction.
        erofs::Error::Tree {
            error:
                erofs::TreeError::NoRoot
                | erofs::TreeError::NoInode
                | erofs::TreeError::NoParent
                | erofs::TreeError::LinkedDirectory
                | erofs::TreeError::Mode,
            ..
        } => (Responsible::Cloister, REPORT),
        erofs::Error::Tree { .. } => (Responsible::Author, "change or remove this file in the image"),
        erofs::Error::TooLarge => (Responsible::Author, "make the application smaller"),
        erofs::Error::Read { .. } | erofs::Error::Write(_) => (Responsible::Host, SPACE),
        erofs::Error::Compress(_) => (Responsible::Host, "give the build more memory"),
    }
}

fn artifact(error: &ArtifactError) -> (Responsible, &'static str) {
    match error {
        ArtifactError::Occupied(_) | ArtifactError::NotAnEnclave(_) => {
            (Responsible::Operator, "choose another path with -o")
        }
        ArtifactError::Layout { .. }
        | ArtifactError::NoPart { .. }
        | ArtifactError::Changed { .. }
        | ArtifactError::Document { .. } => (Responsible::Operator, "build the enclave image again"),
        ArtifactError::Host { .. } => {
            (Responsible::Host, "choose another path with -o, or free disk space there")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_full_disk_is_the_hosts_problem_and_a_bad_name_the_authors() {
        let layer = |error| {
            let error =
                BuildError::Layer { number: 1, count: 1, digest: Digest::of(b""), error: Box::new(error) };
            error.responsibility().0
        };
        assert_eq!(layer(LayerError::Scratch(io::ErrorKind::StorageFull.into())), Responsible::Host);
        assert_eq!(layer(LayerError::Blob(io::ErrorKind::PermissionDenied.into())), Responsible::Host);
        let refused = LayerError::Entry { name: "x".to_owned(), error: EntryError::Traversal };
        assert_eq!(layer(refused), Responsible::Author);
        let missing = DirectoryError::Read { path: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        let error = BuildError::Directory { path: PathBuf::new(), error: missing };
        assert_eq!(error.responsibility().0, Responsible::Operator);
    }
    #[test]
    fn a_tree_that_no_image_can_produce_is_our_bug() {
        let tree =
            |error| BuildError::Erofs(erofs::Error::Tree { path: "/x".to_owned(), error }).responsibility().0;
        assert_eq!(tree(erofs::TreeError::NoParent), Responsible::Cloister);
        assert_eq!(tree(erofs::TreeError::NoInode), Responsible::Cloister);
        assert_eq!(tree(erofs::TreeError::LongName), Responsible::Author);
    }
}
