//! Untrusted images: layers, archives, the documents of a layout, and the ramdisk's format.

use std::io::{Cursor, Read, Write};
use std::num::NonZeroUsize;

use cloister_image::cpio;
use cloister_image::digest::Digest;
use cloister_image::erofs;
use cloister_image::layers::{self, Layer};
use cloister_image::limits::Limits;
use cloister_image::oci::{
    Architecture, Blob, Document, ImageConfig, Index, Reference, Select, open_docker_archive,
    open_oci_archive,
};
use cloister_image::sbom;
use cloister_image::spool::Spool;
use cloister_image::tree::{Content, Inode, Kind, Tree, parent};

/// Limits low enough for a fuzzer's inputs to reach.
const LIMITS: Limits = Limits { unpacked: 4 << 20, entries: 1000, metadata: 64 << 10, layers: 100 };

/// A layer, compressed or not, over an empty root.
pub fn layer(data: &[u8]) {
    let Some(blob) = blob(data) else { return };
    let layer = Layer { blob, digest: None, diff_id: Digest::of(data) };
    let Ok(mut spool) = Spool::new(&std::env::temp_dir()) else { return };
    let mut tree = Tree::new();
    if layers::apply(&mut tree, &mut spool, &[layer], &LIMITS).is_ok() {
        check_tree(&tree);
        let archive = write_cpio(&tree);
        if let Some(archive) = archive {
            assert_eq!(names_of(&archive).expect("a written archive can be read"), tree.entries.len());
        }
        write_erofs(&tree);
    }
}

/// An anonymous file with the input.
fn blob(data: &[u8]) -> Option<Blob> {
    let mut file = tempfile::tempfile().ok()?;
    file.write_all(data).ok()?;
    Blob::whole(file).ok()
}

/// Every name is in a directory of the tree, and none leads upwards.
fn check_tree(tree: &Tree) {
    for path in tree.entries.keys().filter(|path| !path.is_empty()) {
        assert!(
            tree.get(parent(path)).is_some_and(|inode| inode.is_directory()),
            "a name is not in a directory"
        );
        for part in path.split(|byte| *byte == b'/') {
            assert!(!matches!(part, b"" | b"." | b".."), "a name leads upwards");
        }
    }
}

fn write_cpio(tree: &Tree) -> Option<Vec<u8>> {
    let mut writer = cpio::Writer::new(Vec::new());
    writer.tree(b"root", tree).ok()?;
    writer.finish().ok()
}

fn write_erofs(tree: &Tree) {
    let mut first = Cursor::new(Vec::new());
    let options =
        erofs::Options { compression: erofs::Compression::Lz4, workers: NonZeroUsize::MIN, pack_small: true };
    if erofs::write(tree, &options, &mut first).is_ok() {
        let mut second = Cursor::new(Vec::new());
        erofs::write(tree, &options, &mut second).expect("the same tree can be written again");
        assert!(first.into_inner() == second.into_inner(), "the same tree gave different bytes");
    }
}

/// Archives of `docker save`, and layouts in archives.
pub fn archive(data: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_err() {
        return;
    }
    let scratch = std::env::temp_dir();
    let architecture = Architecture::X86_64;
    for open in [open_docker_archive, open_oci_archive] {
        let Ok(image) = open(file.path(), &Select::Only, architecture, &scratch, &LIMITS) else { continue };
        let Ok(mut spool) = Spool::new(&scratch) else { return };
        let mut tree = Tree::new();
        if layers::apply(&mut tree, &mut spool, &image.layers, &LIMITS).is_ok() {
            check_tree(&tree);
        }
    }
}

/// Documents of a layout, and image references as typed by users.
pub fn documents(data: &[u8]) {
    let _ = Document::parse_alone(data);
    for media_type in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "text/plain",
    ] {
        if let Ok(document) = Document::parse(data, media_type) {
            assert_ne!(media_type, "text/plain", "read as another media type: {document:?}");
        }
    }
    let _ = serde_json::from_slice::<Index>(data);
    let _ = serde_json::from_slice::<ImageConfig>(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Reference>();
        if let Ok(digest) = text.parse::<Digest>() {
            assert_eq!(digest.to_string(), text);
        }
    }
}

/// An archive in the kernel's format.
pub fn cpio(data: &[u8]) {
    let _ = names_of(data);
}

/// The number of entries in an archive; their contents are read as well.
fn names_of(archive: &[u8]) -> Result<usize, cpio::ReadError> {
    let mut reader = cpio::Reader::new(archive);
    let mut count = 0;
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).map_err(cpio::ReadError::Read)?;
        assert!(content.len() <= usize::try_from(entry.size).unwrap_or(usize::MAX));
        count += 1;
    }
    Ok(count)
}

/// RPM's database in `SQLite` format, as read for an image's SBOM.
pub fn rpm(data: &[u8]) {
    rpm_at(b"var/lib/rpm/rpmdb.sqlite", data);
}

/// The same in Berkeley DB format.
pub fn rpm_bdb(data: &[u8]) {
    rpm_at(b"var/lib/rpm/Packages", data);
}

/// The same in SUSE's format.
pub fn rpm_ndb(data: &[u8]) {
    rpm_at(b"var/lib/rpm/Packages.db", data);
}

fn rpm_at(path: &[u8], data: &[u8]) {
    let sbom = || {
        let mut tree = Tree::new();
        let kind = Kind::File(Content::Bytes(data.into()));
        tree.insert(path.to_vec(), Inode { kind, ..Inode::directory() });
        sbom::generate("app", &tree, &serde_json::Value::Null).expect("reading memory cannot fail")
    };
    assert_eq!(sbom(), sbom(), "the same database gave different SBOMs");
}
