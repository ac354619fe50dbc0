//! Artifacts are complete or absent, and are accepted only with the right bytes.

use std::path::Path;

use super::*;
use crate::oci::Architecture;
use crate::ramdisk::{FileRecord, OsRelease};

fn release() -> OsRelease {
    let file = FileRecord { sha256: Digest::of(b""), bytes: 0 };
    OsRelease {
        version: "1".to_owned(),
        arch: Architecture::X86_64,
        kernel: file,
        ramdisk: file,
        cmdline: "quiet".to_owned(),
        cmdline_nitro: Some("reboot=k".to_owned()),
    }
}

fn write(path: &Path, kernel: &[u8]) -> Digest {
    let mut writer = Writer::new(path).unwrap();
    writer.bytes(Part::Kernel, kernel).unwrap();
    writer.bytes(Part::OsRamdisk, b"os").unwrap();
    writer.unpacks_to(Part::OsRamdisk, 77);
    writer.bytes(Part::AppRamdisk, b"app").unwrap();
    writer.bytes(Part::CommandLine, b"quiet").unwrap();
    writer.bytes(Part::Manifest, b"{}").unwrap();
    writer.bytes(Part::OsRelease, &serde_json::to_vec(&release()).unwrap()).unwrap();
    writer.bytes(Part::BuildRecord, b"{}").unwrap();
    writer.finish().unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_part_has_a_row() {
    for (part, media_type, title) in PARTS {
        assert_eq!((part.media_type(), part.title()), (media_type, title));
        assert_eq!(Part::of_media_type(media_type), Some(part));
    }
}

#[test]
fn a_written_artifact_is_read_back() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("app.cloister");
    let digest = write(&path, b"kernel");
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.digest(), digest);
    artifact.verify().unwrap();
    let mut kernel = Vec::new();
    artifact.copy(Part::Kernel, &mut kernel).unwrap();
    assert_eq!(kernel, b"kernel");
    assert_eq!(artifact.command_line().unwrap(), "quiet");
    assert_eq!(artifact.os_release().unwrap(), release());
    assert_eq!((artifact.size(Part::EifSignature), artifact.unpacked(Part::OsRamdisk)), (0, 77));
}

#[test]
fn an_older_artifact_is_replaced_and_nothing_is_left_over() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("app.cloister");
    let first = write(&path, b"one");
    let second = write(&path, b"two");
    assert_ne!(first, second);
    assert_eq!(Artifact::open(&path).unwrap().digest(), second);
    assert_eq!(names(place.path()), ["app.cloister"]);
}

#[test]
fn other_files_and_directories_are_not_replaced() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), b"mine").unwrap();
    std::fs::create_dir(place.path().join("directory")).unwrap();
    for name in ["file", "directory"] {
        assert!(matches!(Writer::new(&place.path().join(name)), Err(ArtifactError::Occupied(_))), "{name}");
    }
    assert_eq!(names(place.path()), ["directory", "file"]);
}

#[test]
fn an_abandoned_artifact_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&place.path().join("app.cloister")).unwrap();
    writer.bytes(Part::Kernel, b"kernel").unwrap();
    drop(writer);
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn a_changed_part_is_detected() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("app.cloister");
    write(&path, b"kernel");
    let blob = path.join("blobs/sha256").join(Digest::of(b"kernel").hex());
    std::fs::write(&blob, b"lernek").unwrap();
    let artifact = Artifact::open(&path).unwrap();
    assert!(matches!(artifact.verify(), Err(ArtifactError::Changed { title: "kernel", .. })));
    std::fs::write(&blob, b"shorter or longer").unwrap();
    assert!(matches!(Artifact::open(&path), Err(ArtifactError::Layout { .. })));
    std::fs::remove_file(&blob).unwrap();
    assert!(matches!(Artifact::open(&path), Err(ArtifactError::NoPart { title: "kernel", .. })));
}
