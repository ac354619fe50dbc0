//! Who must act on a failed build, and how.
//!
//! Invariant: the responsible person can do what the hint says. A full disk is never the image author's problem.

use super::BuildFault;
use crate::artifact::ArtifactFault;
use crate::cpio::WriteFault;
use crate::directory::DirectoryFault;
use crate::erofs;
use crate::layers::{EntryFault, LayerFault};
use crate::oci::OciFault;

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The user who started the build: another path, name or option.
    Operator,
    /// The author of the image.
    Author,
    /// The administrator of this host: disk space, permissions, an installation.
    Host,
}

const PATHS: &str =
    "--image takes oci:DIR, oci-archive:FILE, docker-archive:FILE, docker://HOST/NAME or dir:DIR";
const AGAIN: &str = "fetch or copy the image again: it is damaged";
const SPACE: &str = "free disk space there, or point CLOISTER_CACHE to another disk";
const READABLE: &str = "check that the file exists and that this user may read it";
const RELEASE: &str = "build the Cloister OS with ./scripts/build, or set CLOISTER_OS to its directory";

impl BuildFault {
    /// Who must act, and a hint on how.
    #[must_use]
    pub fn responsibility(&self) -> (Who, &'static str) {
        match self {
            Self::Input { fault, .. } => oci(fault),
            Self::Layer { fault, .. } => layer(fault),
            Self::Directory { fault, .. } => directory(fault),
            Self::Manifest(_) => (Who::Author, "make the manifest shorter"),
            Self::Os { .. } | Self::NoNitro => (Who::Host, RELEASE),
            Self::Ramdisk(fault) => ramdisk(fault),
            Self::Erofs(fault) => file_system(fault),
            Self::Sign(_) => (Who::Operator, "give a P-384 key and its certificate"),
            Self::Artifact(fault) => artifact(fault),
            Self::Cancelled => (Who::Operator, "start it again"),
            Self::Scratch { .. } => (Who::Host, SPACE),
        }
    }
}

fn oci(fault: &OciFault) -> (Who, &'static str) {
    match fault {
        OciFault::NotALayout(_) | OciFault::NotAnArchive { .. } => (Who::Operator, PATHS),
        OciFault::Platform { .. } => (
            Who::Operator,
            "choose or build an image for this architecture; select one for newer processors (/v2, /v3) by its digest",
        ),
        OciFault::Artifact(_) => (Who::Operator, "name the image that these artifacts belong to"),
        OciFault::Name { .. } => (Who::Operator, "name one of them, as in oci:DIR:NAME"),
        OciFault::Ambiguous(_) => (Who::Operator, "name one of them, as in oci:DIR:NAME or oci:DIR@sha256:…"),
        OciFault::Missing { .. } | OciFault::Digest { .. } | OciFault::Size { .. } => (Who::Operator, AGAIN),
        OciFault::MediaType(_) => {
            (Who::Author, "build the image with plain, gzip or zstd layers (not schema 1, not encrypted)")
        }
        OciFault::Document { .. } | OciFault::AmbiguousDocument(_) | OciFault::LayerCount { .. } => {
            (Who::Author, "build the image with another tool: its documents violate the OCI specification")
        }
        OciFault::Limit(fault) => (Who::Author, fault.hint()),
        OciFault::Unpack(fault) => layer(fault),
        OciFault::Host { .. } => (Who::Host, READABLE),
    }
}

fn layer(fault: &LayerFault) -> (Who, &'static str) {
    match fault {
        LayerFault::Digest { .. } | LayerFault::Damaged(_) | LayerFault::Tar { .. } => (Who::Operator, AGAIN),
        LayerFault::Compression(_) => (Who::Author, "compress the layer with gzip or zstd"),
        LayerFault::Limit(fault) => (Who::Author, fault.hint()),
        LayerFault::Entry { fault, .. } => (Who::Author, entry(fault)),
        LayerFault::Blob(_) => (Who::Host, READABLE),
        LayerFault::Scratch(_) => (Who::Host, SPACE),
    }
}

fn entry(fault: &EntryFault) -> &'static str {
    match fault {
        EntryFault::Traversal => "remove the file from the image: every name in it must be below its root",
        EntryFault::DanglingHardLink(_) | EntryFault::HardLinkTarget(_) => {
            "add the file that the hard link names before it, in this layer or a lower one"
        }
        _ => "correct this entry in the image, or fetch the image again in case it is damaged",
    }
}

fn directory(fault: &DirectoryFault) -> (Who, &'static str) {
    match fault {
        DirectoryFault::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (Who::Operator, READABLE)
        }
        DirectoryFault::Read { .. } => (Who::Operator, "give dir: the root directory of a file system"),
        DirectoryFault::Changed(_) => (Who::Operator, "build again when no process writes there"),
        DirectoryFault::Entry { fault, .. } => (Who::Author, entry(fault)),
        DirectoryFault::Limit(fault) => (Who::Author, fault.hint()),
        DirectoryFault::Scratch(_) => (Who::Host, SPACE),
    }
}

fn ramdisk(fault: &WriteFault) -> (Who, &'static str) {
    match fault {
        WriteFault::TooLarge { .. } => (
            Who::Author,
            "make the application smaller: compressed, it must stay under 4 GiB, and under 3 GiB to run on microvm or 2 GiB on q35",
        ),
        WriteFault::TooLong(_) => (Who::Author, "shorten the path"),
        WriteFault::Read { .. } | WriteFault::Write(_) => (Who::Host, SPACE),
    }
}

fn file_system(fault: &erofs::Error) -> (Who, &'static str) {
    match fault {
        erofs::Error::Tree { .. } => (Who::Author, "change or remove this file in the image"),
        erofs::Error::TooLarge => (Who::Author, "make the application smaller"),
        erofs::Error::Read { .. } | erofs::Error::Write(_) => (Who::Host, SPACE),
        erofs::Error::Compress(_) => (Who::Host, "give the build more memory"),
    }
}

fn artifact(fault: &ArtifactFault) -> (Who, &'static str) {
    match fault {
        ArtifactFault::Occupied(_) | ArtifactFault::NotAnEnclave(_) => {
            (Who::Operator, "choose another path with -o")
        }
        ArtifactFault::Layout { .. }
        | ArtifactFault::NoPart { .. }
        | ArtifactFault::Changed { .. }
        | ArtifactFault::Document { .. } => (Who::Operator, "build the enclave image again"),
        ArtifactFault::Host { .. } => (Who::Host, "choose another path with -o, or free disk space there"),
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
        let layer = |fault| {
            let fault =
                BuildFault::Layer { number: 1, count: 1, digest: Digest::of(b""), fault: Box::new(fault) };
            fault.responsibility().0
        };
        assert_eq!(layer(LayerFault::Scratch(io::ErrorKind::StorageFull.into())), Who::Host);
        assert_eq!(layer(LayerFault::Blob(io::ErrorKind::PermissionDenied.into())), Who::Host);
        let refused = LayerFault::Entry { name: "x".to_owned(), fault: EntryFault::Traversal };
        assert_eq!(layer(refused), Who::Author);
        let missing = DirectoryFault::Read { path: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        let fault = BuildFault::Directory { path: PathBuf::new(), fault: missing };
        assert_eq!(fault.responsibility().0, Who::Operator);
    }
}
