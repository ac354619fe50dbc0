//! Who must act on a fault, and how.
//!
//! Its law: whoever is named can do what the hint says. A full disk is never the image author's.

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
    /// Whoever asked for the build: another path, name or option.
    Operator,
    /// Whoever made the image.
    Author,
    /// Whoever keeps this host: room, rights, an installation.
    Host,
    /// The authors of Cloister: what should not happen has happened.
    Cloister,
}

const PATHS: &str =
    "--image takes oci:DIR, oci-archive:FILE, docker-archive:FILE, docker://HOST/NAME or dir:DIR";
const AGAIN: &str = "fetch or copy the image again: it is damaged";
const ROOM: &str = "make room there, or point CLOISTER_CACHE to another disk";
const READABLE: &str = "run as a user who may read it";
const REPORT: &str = "report it: this is a fault in Cloister itself";
const RELEASE: &str = "./scripts/build makes the Cloister OS; CLOISTER_OS names its folder";

impl BuildFault {
    /// Who must act, and a hint on how.
    #[must_use]
    pub fn blame(&self) -> (Who, &'static str) {
        match self {
            Self::Input { fault, .. } => oci(fault),
            Self::Layer { fault, .. } => layer(fault),
            Self::Directory { fault, .. } => directory(fault),
            Self::Manifest(_) => (Who::Cloister, REPORT),
            Self::Os { .. } | Self::NoNitro => (Who::Host, RELEASE),
            Self::Ramdisk(fault) => ramdisk(fault),
            Self::Erofs(fault) => file_system(fault),
            Self::Sign(_) => (Who::Operator, "give a P-384 key and its certificate"),
            Self::Artifact(fault) => artifact(fault),
            Self::GivenUp => (Who::Operator, "start it again"),
            Self::Scratch { .. } => (Who::Host, ROOM),
        }
    }
}

fn oci(fault: &OciFault) -> (Who, &'static str) {
    match fault {
        OciFault::NotALayout(_) | OciFault::NotAnArchive { .. } => (Who::Operator, PATHS),
        OciFault::Platform { .. } => (
            Who::Operator,
            "choose or build an image for this machine; one for newer processors (/v2, /v3) is taken if its digest names it",
        ),
        OciFault::Artifact(_) => (Who::Operator, "name the image that these artifacts are about"),
        OciFault::Name { .. } => (Who::Operator, "name one of them, as in oci:DIR:NAME"),
        OciFault::Ambiguous(_) => (Who::Operator, "say which one, as in oci:DIR:NAME or oci:DIR@sha256:…"),
        OciFault::Missing { .. } | OciFault::Digest { .. } | OciFault::Size { .. } => (Who::Operator, AGAIN),
        OciFault::MediaType(_) => {
            (Who::Author, "build the image with plain, gzip or zstd layers (not schema 1, not encrypted)")
        }
        OciFault::Document { .. } | OciFault::Ambivalent(_) | OciFault::LayerCount { .. } => {
            (Who::Author, "build the image with another tool: its documents contradict the OCI specification")
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
        LayerFault::Scratch(_) => (Who::Host, ROOM),
    }
}

fn entry(fault: &EntryFault) -> &'static str {
    match fault {
        EntryFault::Traversal => "nothing in an image may be named above its root",
        EntryFault::HardLinkToNothing(_) | EntryFault::HardLinkTarget(_) => {
            "a hard link needs its file before it, in this layer or a lower one"
        }
        _ => "build the layer another way, or fetch the image again if it should be sound",
    }
}

fn directory(fault: &DirectoryFault) -> (Who, &'static str) {
    match fault {
        DirectoryFault::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (Who::Operator, READABLE)
        }
        DirectoryFault::Read { .. } => (Who::Operator, "dir: takes the root of a file system"),
        DirectoryFault::Changed(_) => (Who::Operator, "build again when nobody writes there"),
        DirectoryFault::Entry { fault, .. } => (Who::Author, entry(fault)),
        DirectoryFault::Limit(fault) => (Who::Author, fault.hint()),
        DirectoryFault::Scratch(_) => (Who::Host, ROOM),
    }
}

fn ramdisk(fault: &WriteFault) -> (Who, &'static str) {
    match fault {
        WriteFault::TooLarge { .. } => (
            Who::Author,
            "make the application smaller: compressed, it must stay under 4 GiB, and under 3 GiB to run on microvm or 2 GiB on q35",
        ),
        WriteFault::TooLong(_) => (Who::Author, "shorten the path"),
        WriteFault::Read { .. } | WriteFault::Write(_) => (Who::Host, ROOM),
    }
}

fn file_system(fault: &erofs::Error) -> (Who, &'static str) {
    match fault {
        // The tree that layers are laid into has these properties by itself.
        erofs::Error::Tree {
            fault:
                erofs::Fault::NoRoot
                | erofs::Fault::NoInode
                | erofs::Fault::NoParent
                | erofs::Fault::LinkedDirectory
                | erofs::Fault::Mode,
            ..
        } => (Who::Cloister, REPORT),
        erofs::Error::Tree { .. } | erofs::Error::TooLarge => {
            (Who::Author, "lay the application out another way")
        }
        erofs::Error::Read { .. } | erofs::Error::Write(_) => (Who::Host, ROOM),
        erofs::Error::Compress(_) => (Who::Host, "give the build more memory"),
    }
}

fn artifact(fault: &ArtifactFault) -> (Who, &'static str) {
    match fault {
        ArtifactFault::Occupied(_) | ArtifactFault::NotAnEnclave(_) => {
            (Who::Operator, "choose another place with -o")
        }
        ArtifactFault::Layout { .. }
        | ArtifactFault::NoPart { .. }
        | ArtifactFault::Changed { .. }
        | ArtifactFault::Document { .. } => (Who::Operator, "build the enclave image again"),
        ArtifactFault::Host { .. } => (Who::Host, "choose another place with -o, or make room there"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_full_disk_is_the_hosts_and_a_bad_name_the_authors() {
        let layer = |fault| {
            let fault =
                BuildFault::Layer { number: 1, count: 1, digest: Digest::of(b""), fault: Box::new(fault) };
            fault.blame().0
        };
        assert_eq!(layer(LayerFault::Scratch(io::ErrorKind::StorageFull.into())), Who::Host);
        assert_eq!(layer(LayerFault::Blob(io::ErrorKind::PermissionDenied.into())), Who::Host);
        let refused = LayerFault::Entry { name: "x".to_owned(), fault: EntryFault::Traversal };
        assert_eq!(layer(refused), Who::Author);
        let missing = DirectoryFault::Read { path: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        let fault = BuildFault::Directory { path: PathBuf::new(), fault: missing };
        assert_eq!(fault.blame().0, Who::Operator);
    }

    #[test]
    fn a_tree_that_only_we_can_have_broken_is_not_the_image_authors() {
        let tree = |fault| BuildFault::Erofs(erofs::Error::Tree { path: "/x".to_owned(), fault }).blame().0;
        assert_eq!(tree(erofs::Fault::NoParent), Who::Cloister);
        assert_eq!(tree(erofs::Fault::NoInode), Who::Cloister);
        assert_eq!(tree(erofs::Fault::LongName), Who::Author);
    }
}
