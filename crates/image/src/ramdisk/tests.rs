//! Both ramdisks are read back.

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
fn the_application_ramdisk_contains_the_manifest_and_the_root() {
    let mut tree = Tree::new();
    tree.insert(b"etc".to_vec(), Inode::directory());
    let mut bytes = Vec::new();
    let written = write_app(b"{}\n", AppRoot::Plain(&tree), &mut bytes).unwrap();
    assert_eq!((written.size, written.digest), (crate::wide(bytes.len()), Digest::of(&bytes)));
    assert_eq!(written.size % ALIGNMENT, 0);
    // Padding follows the frame, and zstd's tools would treat it as a damaged second one.
    let mut unpacked = Vec::new();
    zstd::Decoder::new(bytes.as_slice()).unwrap().single_frame().read_to_end(&mut unpacked).unwrap();
    let expected = ["cloister", "cloister/manifest.json", "cloister/root", "cloister/root/etc"];
    assert_eq!(names(&unpacked), expected);
}

#[test]
fn a_file_system_is_stored_in_the_ramdisk_unchanged() {
    let mut image = tempfile::tempfile().unwrap();
    image.write_all(b"erofs").unwrap();
    std::io::Seek::rewind(&mut image).unwrap();
    let mut bytes = Vec::new();
    write_app(b"{}\n", AppRoot::Erofs { image, size: 5 }, &mut bytes).unwrap();
    assert_eq!(names(&bytes), ["cloister", "cloister/manifest.json", "cloister/root.erofs"]);
}

#[test]
fn ramdisk_1_is_reproducible_in_any_directory() {
    let pack = || {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("list"), "dir 0755 /sbin\nfile 0555 /init the-init\n").unwrap();
        std::fs::write(path("the-init"), b"init").unwrap();
        let written = pack_os(&path("list"), place.path(), &path("out")).unwrap();
        // The entry that ends an archive has 124 bytes, and is not unpacked.
        assert_eq!(unpacked_size(&path("out")).unwrap(), written.unpacked + 124);
        std::fs::read(path("out")).unwrap()
    };
    let bytes = pack();
    assert_eq!(bytes, pack());
    assert_eq!(crate::wide(bytes.len()) % ALIGNMENT, 0);
}

#[test]
fn a_missing_program_is_named() {
    let place = tempfile::tempdir().unwrap();
    let list = place.path().join("list");
    std::fs::write(&list, "file 0555 /init the-init\n").unwrap();
    let error = pack_os(&list, place.path(), &place.path().join("out")).unwrap_err();
    assert!(error.to_string().ends_with("/the-init cannot be read"), "{error}");
}

#[test]
fn a_record_for_another_architecture_or_with_an_invalid_command_line_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let record = |arch: &str, cmdline: &str| {
        let file = serde_json::json!({"sha256": Digest::of(b"").hex(), "bytes": 0, "compiler": "gcc"});
        let record = serde_json::json!({
            "version": "1", "arch": arch, "kernel": file, "ramdisk": file, "cmdline": cmdline, "rustc": "1.95",
        });
        std::fs::write(place.path().join("os.json"), record.to_string()).unwrap();
        read_os(place.path(), Architecture::X86_64)
    };
    assert_eq!(record("x86_64", "quiet").unwrap().0.cmdline, "quiet");
    assert!(matches!(record("aarch64", "quiet"), Err(OsError::Architecture { .. })));
    assert!(matches!(record("riscv", "quiet"), Err(OsError::Record { .. })));
    for cmdline in ["", "a\nb", &"x".repeat(2048)] {
        assert!(matches!(record("x86_64", cmdline), Err(OsError::CommandLine)));
    }
}
