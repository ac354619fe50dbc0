//! Both ramdisks, read back.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::*;
use crate::cpio::Reader;
use crate::oci::Architecture;
use crate::tree::{Inode, Tree};

fn names(bytes: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
    }
    names
}

#[test]
fn the_application_ramdisk_holds_the_manifest_and_the_root() {
    let mut tree = Tree::new();
    tree.insert(b"etc".to_vec(), Inode::directory());
    let mut bytes = Vec::new();
    let written = write_app(b"{}\n", AppRoot::Plain(&tree), &mut bytes).unwrap();
    assert_eq!((written.size, written.digest), (crate::wide(bytes.len()), Digest::of(&bytes)));
    assert_eq!(written.size % ALIGNMENT, 0);
    // What fills up to the alignment follows the frame, and zstd's tools would take it for a broken second one.
    let mut unpacked = Vec::new();
    zstd::Decoder::new(bytes.as_slice()).unwrap().single_frame().read_to_end(&mut unpacked).unwrap();
    let expected = ["cloister", "cloister/manifest.json", "cloister/root", "cloister/root/etc"];
    assert_eq!(names(&unpacked), expected);
}

#[test]
fn a_file_system_goes_into_the_ramdisk_as_it_is() {
    let mut image = tempfile::tempfile().unwrap();
    image.write_all(b"erofs").unwrap();
    std::io::Seek::rewind(&mut image).unwrap();
    let mut bytes = Vec::new();
    write_app(b"{}\n", AppRoot::Erofs { image, size: 5 }, &mut bytes).unwrap();
    assert_eq!(names(&bytes), ["cloister", "cloister/manifest.json", "cloister/root.erofs"]);
}

#[test]
fn a_release_is_packed_alike_anywhere_and_read_back() {
    let pack_in = |out: &std::path::Path| {
        let sources = tempfile::tempdir().unwrap();
        std::fs::write(sources.path().join("list"), "dir /sbin 0755\nfile /init 0755 @init\n").unwrap();
        std::fs::write(sources.path().join("kernel"), b"kernel").unwrap();
        std::fs::write(sources.path().join("init"), b"init").unwrap();
        let programs = BTreeMap::from([("init".to_owned(), sources.path().join("init"))]);
        let pack = OsPack {
            version: "1.2.3",
            architecture: Architecture::X86_64,
            kernel: &sources.path().join("kernel"),
            kernel_record: None,
            list: &sources.path().join("list"),
            programs: &programs,
            command_line: "quiet",
        };
        pack_os(&pack, out).unwrap()
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let release = pack_in(a.path());
    pack_in(b.path());
    for name in ["os.json", "os.cpio.zst", "kernel"] {
        let bytes = |directory: &std::path::Path| std::fs::read(directory.join(name)).unwrap();
        assert_eq!(bytes(a.path()), bytes(b.path()), "{name}");
    }
    assert_eq!(read_os(a.path(), Architecture::X86_64).unwrap(), release);
    assert!(matches!(read_os(a.path(), Architecture::Aarch64), Err(OsFault::Architecture { .. })));
}
