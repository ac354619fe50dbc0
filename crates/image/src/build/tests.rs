//! Whole builds, from a directory and from a layout; each is reproducible.

use std::collections::BTreeMap;
use std::io::Cursor;

use cloister_manifest::model;

use super::*;
use crate::artifact::{Artifact, Part};
use crate::eif::{Eif, explain};
use crate::measure::Measurements;
use crate::oci::test_image::{self, TestImage};
use crate::ramdisk;
use crate::tree::Content;

pub(super) fn manifest() -> Manifest {
    Manifest {
        version: model::VERSION,
        name: "test".to_owned(),
        platforms: cloister_manifest::Platform::ALL.to_vec(),
        services: Vec::new(),
        ingress: Vec::new(),
        root: model::Root { writable_bytes: 1 << 20, additions: Vec::new(), pinned: Vec::new() },
        control: model::Control { host: Vec::new(), services: Vec::new() },
        attestation: model::Attestation::default(),
        stop_timeout_ms: 1000,
        debug: false,
    }
}

fn pack_release(place: &Path) -> PathBuf {
    let os = place.join("os");
    std::fs::create_dir(&os).unwrap();
    std::fs::write(place.join("list"), "dir 0555 /proc\nfile 0755 /init init\n").unwrap();
    std::fs::write(place.join("init"), "i").unwrap();
    std::fs::write(os.join("kernel"), "k").unwrap();
    let ramdisk = ramdisk::pack_os(&place.join("list"), place, &ramdisk::ramdisk_path(&os)).unwrap();
    let release = serde_json::json!({
        "version": "1",
        "arch": "x86_64",
        "kernel": {"sha256": Digest::of(b"k").hex(), "bytes": 1},
        "ramdisk": {"sha256": ramdisk.digest.hex(), "bytes": ramdisk.size},
        "cmdline": "quiet",
        "cmdline_nitro": "reboot=k quiet",
    });
    std::fs::write(os.join("os.json"), release.to_string()).unwrap();
    os
}

/// Builds in a directory of its own, and returns every file of the artifact.
fn build(input: impl Fn(&Path) -> Input) -> BTreeMap<PathBuf, Vec<u8>> {
    let place = tempfile::tempdir().unwrap();
    let os = pack_release(place.path());
    let options = Options {
        architecture: Architecture::X86_64,
        scratch: place.path(),
        limits: Limits::default(),
        clamp_mtime: Some(1_000_000_000),
    };
    let application = open(&input(place.path()), &options).unwrap();
    let output = place.path().join("app.cloister");
    let tool = ToolRecord { name: "test".to_owned(), version: "0".to_owned() };
    let request = Pack {
        manifest: &manifest(),
        manifest_source: None,
        os: &os,
        root: RootForm::Erofs,
        workers: NonZeroUsize::MIN,
        tool,
        signer: None,
        output: &output,
        stop: &AtomicBool::new(false),
    };
    let mut finished = pack(&application, &request).unwrap();
    assert!(!output.exists());
    finished.publish().unwrap();
    let digest = finished.digest();
    let artifact = Artifact::open(&output).unwrap();
    artifact.verify().unwrap();
    assert_eq!(artifact.digest(), digest);
    assert_eq!(artifact.manifest().unwrap(), manifest());
    files(&output)
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn two_builds_of_a_directory_in_two_places_are_the_same_bytes() {
    // The files are created again each time, in another order: other inode numbers, other times, another directory.
    let input = |names: [&'static str; 3]| {
        move |place: &Path| {
            let path = place.join("rootfs");
            std::fs::create_dir(&path).unwrap();
            for name in names {
                std::fs::write(path.join(name), name).unwrap();
            }
            std::fs::hard_link(path.join("a"), path.join("z")).unwrap();
            Input::Directory { path }
        }
    };
    assert_eq!(build(input(["a", "b", "c"])), build(input(["c", "a", "b"])));
}

#[test]
fn two_builds_of_a_layout_in_two_places_are_the_same_bytes() {
    let input = |place: &Path| {
        let path = place.join("layout");
        TestImage::default()
            .layer(&test_image::tar(&[("etc/", ""), ("etc/motd", "hello")]))
            .write_layout(&path);
        Input::Layout { path, select: Select::Only }
    };
    assert_eq!(build(input), build(input));
}

/// Builds with a release that `damage` has changed; returns the error after checking that nothing is left behind.
fn failed_build(root: RootForm, stop: &AtomicBool, damage: impl FnOnce(&Path)) -> BuildError {
    let place = tempfile::tempdir().unwrap();
    let os = pack_release(place.path());
    damage(&os);
    std::fs::create_dir(place.path().join("rootfs")).unwrap();
    std::fs::write(place.path().join("rootfs/file"), "content").unwrap();
    let options = Options {
        architecture: Architecture::X86_64,
        scratch: place.path(),
        limits: Limits::default(),
        clamp_mtime: None,
    };
    let application = open(&Input::Directory { path: place.path().join("rootfs") }, &options).unwrap();
    let names = || std::fs::read_dir(place.path()).unwrap().count();
    let before = names();
    let request = Pack {
        manifest: &manifest(),
        manifest_source: None,
        os: &os,
        root,
        workers: NonZeroUsize::MIN,
        tool: ToolRecord { name: "test".to_owned(), version: "0".to_owned() },
        signer: None,
        output: &place.path().join("app.cloister"),
        stop,
    };
    let error = pack(&application, &request).unwrap_err();
    assert_eq!(names(), before);
    error
}

#[test]
fn a_failed_build_leaves_nothing_behind() {
    let error = failed_build(RootForm::Erofs, &AtomicBool::new(false), |os| {
        std::fs::write(os.join("kernel"), "another kernel").unwrap();
    });
    assert!(matches!(error, BuildError::Os { error: OsError::Changed(_), .. }), "{error:?}");
}

#[test]
fn a_cancelled_build_stops_writing_and_leaves_nothing_behind() {
    // Not only at a check between two parts, but while the application is being written.
    let error = failed_build(RootForm::Erofs, &AtomicBool::new(true), |_| ());
    assert!(matches!(error, BuildError::Erofs(_)), "{error:?}");
    let error = failed_build(RootForm::Plain, &AtomicBool::new(true), |_| ());
    assert!(matches!(error, BuildError::Ramdisk(_)), "{error:?}");
}

#[test]
fn an_incomplete_release_is_reported_and_not_the_output() {
    for name in ["kernel", "os.cpio.zst"] {
        let error = failed_build(RootForm::Erofs, &AtomicBool::new(false), |os| {
            std::fs::remove_file(os.join(name)).unwrap();
        });
        assert!(matches!(error, BuildError::Os { .. }), "{error:?}");
        let (responsible, hint) = error.responsibility();
        assert!(responsible == Responsible::Host && hint.contains("CLOISTER_OS"), "{hint}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(name), "{error:?}");
    }
}

#[test]
fn a_manifest_finds_its_program_and_user_in_the_image() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("layout");
    let passwd = "web:x:33:33::/:/bin/false\n";
    // The minimum that identifies a static x86-64 program.
    let program = format!("\x7fELF\x02\x01\x01{}\x02\0\x3e\0\x01\0\0\0{}", "\0".repeat(9), "\0".repeat(40));
    let tar = test_image::tar(&[("etc/", ""), ("etc/passwd", passwd), ("bin/", ""), ("bin/app", &program)]);
    TestImage::default().layer(&tar).write_layout(&path);
    let options = Options {
        architecture: Architecture::X86_64,
        scratch: place.path(),
        limits: Limits::default(),
        clamp_mtime: None,
    };
    let application = open(&Input::Layout { path, select: Select::Only }, &options).unwrap();
    let yaml = b"version: 1\nservices:\n  web:\n    user: web\n";
    let manifest = source::build("cloister.yaml", yaml, &application.image()).unwrap().manifest;
    let service = manifest.services.first().unwrap();
    assert_eq!((service.uid, service.argv.as_slice()), (33, &["/bin/app".to_owned()][..]));
    let error = source::build(
        "cloister.yaml",
        b"version: 1\nservices:\n  web:\n    command: [/bin/no]\n",
        &application.image(),
    );
    assert!(error.is_err());
}

/// Builds a directory with `files` in the given form, and opens the artifact in `place`.
fn built(place: &Path, files: &[(&str, &str)], root: RootForm) -> Artifact {
    let os = pack_release(place);
    let path = place.join("rootfs");
    std::fs::create_dir(&path).unwrap();
    for (name, content) in files {
        std::fs::write(path.join(name), content).unwrap();
    }
    std::os::unix::fs::symlink("a", path.join("link")).unwrap();
    std::fs::hard_link(path.join("a"), path.join("z")).unwrap();
    let options = Options {
        architecture: Architecture::X86_64,
        scratch: place,
        limits: Limits::default(),
        clamp_mtime: Some(1_000_000_000),
    };
    let application = open(&Input::Directory { path }, &options).unwrap();
    let request = Pack {
        manifest: &manifest(),
        manifest_source: None,
        os: &os,
        root,
        workers: NonZeroUsize::MIN,
        tool: ToolRecord { name: "test".to_owned(), version: "0".to_owned() },
        signer: None,
        output: &place.join("app.cloister"),
        stop: &AtomicBool::new(false),
    };
    pack(&application, &request).unwrap().publish().unwrap();
    Artifact::open(&place.join("app.cloister")).unwrap()
}

#[test]
fn both_forms_hold_the_same_root_and_a_change_is_explained() {
    let places: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let erofs = built(places[0].path(), &[("a", "one"), ("b", "two")], RootForm::Erofs);
    let plain = built(places[1].path(), &[("a", "one"), ("b", "two")], RootForm::Plain);
    let other = built(places[2].path(), &[("a", "one"), ("b", "2")], RootForm::Erofs);
    assert_eq!(erofs.contents().unwrap(), plain.contents().unwrap());

    assert!(crate::difference::compare(&erofs, &erofs).unwrap().is_empty());
    let difference = crate::difference::compare(&erofs, &other).unwrap();
    let parts: Vec<_> = difference.parts.iter().map(|change| change.part.as_str()).collect();
    assert_eq!(parts, ["app.ramdisk", "build.json", "measurements.json"]);
    let files: Vec<_> = difference.files.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(files, ["/b"]);
    assert!(difference.fields.iter().any(|change| change.field == "application.tree"));
    let difference = crate::difference::compare(&erofs, &plain).unwrap();
    assert!(difference.files.is_empty() && !difference.is_empty());
}

#[test]
fn measurements_derive_from_the_parts_alone() {
    let places: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let [one, other] = ["one", "two"].map(|text| {
        let place = places[usize::from(text == "two")].path();
        built(place, &[("a", text)], RootForm::Erofs)
    });
    let pcrs = |artifact: &Artifact| {
        let stored: Measurements =
            serde_json::from_slice(&artifact.document(Part::Measurements).unwrap()).unwrap();
        assert_eq!(stored, artifact.measurements().unwrap());
        let mut file = Cursor::new(Vec::new());
        let summary = artifact.write_eif(&mut file).unwrap();
        let explained = explain(&Eif::open(Content::Bytes(file.into_inner().into())).unwrap()).unwrap();
        assert_eq!(explained.command_line, "reboot=k quiet");
        let pcrs = stored.nitro.unwrap().pcrs;
        assert_eq!((summary.pcrs, explained.pcrs), (pcrs, pcrs));
        pcrs
    };
    let (one, other) = (pcrs(&one), pcrs(&other));
    assert!(one.pcr0 != other.pcr0 && one.pcr1 == other.pcr1 && one.pcr2 != other.pcr2);
}

#[test]
fn the_platform_virtual_measures_as_nitro_but_for_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let artifact = built(place.path(), &[("a", "one")], RootForm::Erofs);
    let nitro = artifact.measurements().unwrap().nitro.unwrap();
    let development = artifact.development_measurements().unwrap();
    assert_eq!(development.nitro, None);
    let development = development.development.unwrap();
    assert_eq!(development.command_line, artifact.command_line().unwrap());
    assert_eq!(development.pcrs.pcr2, nitro.pcrs.pcr2);
    assert!(development.pcrs.pcr0 != nitro.pcrs.pcr0 && development.pcrs.pcr1 != nitro.pcrs.pcr1);
    let parts = [Part::Kernel, Part::OsRamdisk, Part::AppRamdisk].map(|part| {
        let mut bytes = Vec::new();
        artifact.copy(part, &mut bytes).unwrap();
        Content::Bytes(bytes.into())
    });
    let [kernel, ramdisks @ ..] = parts;
    let same_line = crate::measure::nitro(&kernel, &nitro.command_line, &ramdisks, None).unwrap();
    assert_eq!(same_line.pcrs, nitro.pcrs);
}

#[test]
fn the_manifest_is_found_in_the_eif() {
    for root in [RootForm::Erofs, RootForm::Plain] {
        let place = tempfile::tempdir().unwrap();
        let artifact = built(place.path(), &[("a", "one")], root);
        let mut file = Cursor::new(Vec::new());
        artifact.write_eif(&mut file).unwrap();
        let file = Eif::open(Content::Bytes(file.into_inner().into())).unwrap();
        let application = file.content(file.sections().last().unwrap()).unwrap();
        let found = ramdisk::read_manifest(&application).unwrap().unwrap();
        assert_eq!(Manifest::from_json(&found).unwrap(), manifest());
    }
}
