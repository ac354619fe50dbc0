//! SBOMs of roots as created by distributions and package managers.

use serde_json::json;

use super::*;
use crate::tree::Inode;

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, content) in files {
        let kind = Kind::File(Content::Bytes(content.as_bytes().into()));
        tree.insert(path.as_bytes().to_vec(), Inode { kind, ..Inode::directory() });
    }
    tree
}

fn refs(files: &[(&str, &str)]) -> Vec<String> {
    let bom = generate("app", &tree(files), &json!({})).unwrap();
    bom.components
        .into_iter()
        .map(|component| component.bom_ref)
        .filter(|name| name.starts_with("pkg:"))
        .collect()
}

const DEBIAN: (&str, &str) = ("etc/os-release", "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n");

#[test]
fn installed_debian_packages_are_listed_and_removed_ones_are_not() {
    let status = "Package: redis\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5:7.0.15-1\nDescription: x\n y: z\n\n\
                  Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n";
    let found = refs(&[DEBIAN, ("var/lib/dpkg/status", status)]);
    assert_eq!(found, ["pkg:deb/debian/redis@5%3A7.0.15-1?arch=amd64&distro=debian-12"]);
    let single = "Package: base\nArchitecture: amd64\nVersion: 12\n";
    let found = refs(&[
        DEBIAN,
        ("var/lib/dpkg/status.d/base", single),
        ("var/lib/dpkg/status.d/base.md5sums", "Package: x\nVersion: 1"),
    ]);
    assert_eq!(found, ["pkg:deb/debian/base@12?arch=amd64&distro=debian-12"]);
}

#[test]
fn an_overlong_distribution_name_is_omitted() {
    let release = format!("ID={}\nVERSION_ID={}\n", "a".repeat(1025), "1".repeat(1025));
    let installed = ("lib/apk/db/installed", "P:musl\nV:1\nA:x86_64\n\n");
    assert_eq!(refs(&[("etc/os-release", &release), installed]), ["pkg:apk/alpine/musl@1?arch=x86_64"]);
}

#[test]
fn alpine_python_and_npm_packages_are_listed() {
    let files = [
        ("etc/os-release", "ID=alpine\nVERSION_ID=3.20.1\n"),
        ("lib/apk/db/installed", "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\n\n"),
        (
            "usr/lib/python3/dist-packages/My_Lib-1.0.dist-info/METADATA",
            "Name: My_Lib\nVersion: 1.0\n\nName: lie\n",
        ),
        ("app/node_modules/@a/b/package.json", r#"{"name": "@a/b", "version": "2.0.0"}"#),
        ("app/node_modules/c/package.json", r#"{"name": "c", "version": "3.0.0"}"#),
        ("app/node_modules/c/test/package.json", r#"{"name": "fixture", "version": "9"}"#),
        ("app/node_modules/d/package.json", "no json"),
    ];
    let expected = [
        "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1",
        "pkg:npm/%40a/b@2.0.0",
        "pkg:npm/c@3.0.0",
        "pkg:pypi/my-lib@1.0",
    ];
    assert_eq!(refs(&files), expected);
}

#[test]
fn the_operating_system_is_listed_as_in_its_record() {
    let record = json!({
        "version": "1.2", "crates": ["libc 0.2.1", "broken"],
        "kernel": {"sha256": "ab", "release": "6.12.9", "source": {"package": "linux-source-6.12"}},
    });
    let bom = generate("app", &Tree::new(), &record).unwrap();
    let seen: Vec<_> =
        bom.components.iter().map(|part| (part.bom_ref.as_str(), part.version.as_str())).collect();
    let expected = [
        ("operating-system/cloister", "1.2"),
        ("operating-system/linux", "6.12.9"),
        ("pkg:cargo/libc@0.2.1", "0.2.1"),
    ];
    assert_eq!(seen, expected);
}

/// A minimal ELF file with one section of this name: file header, names, content, three section headers.
fn elf(section: &str, bytes: &[u8]) -> Vec<u8> {
    let names = format!("\0{section}\0names\0");
    let (names_at, bytes_at) = (64, 64 + names.len());
    let table_at = bytes_at + bytes.len();
    let header = |name: usize, kind: u32, at: usize, len: usize| {
        let mut header = Vec::new();
        header.extend(u32::try_from(name).unwrap().to_le_bytes());
        header.extend(kind.to_le_bytes());
        for word in [0, 0, at, len, 0, 1, 0] {
            header.extend(u64::try_from(word).unwrap().to_le_bytes());
        }
        header.truncate(40);
        header.resize(48, 0);
        header.extend(1_u64.to_le_bytes());
        header.resize(64, 0);
        header
    };
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 16]);
    file.extend(u64::try_from(table_at).unwrap().to_le_bytes());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    assert_eq!(file.len(), 64);
    file.extend(names.as_bytes());
    file.extend(bytes);
    file.extend([0; 64]);
    file.extend(header(1, 1, bytes_at, bytes.len()));
    file.extend(header(2 + section.len(), 3, names_at, names.len()));
    file
}

#[test]
fn crates_in_the_list_of_a_rust_program_are_listed() {
    use std::io::Write;
    let list = r#"{"packages": [{"name": "serde", "version": "1.0.200", "source": "crates.io"},
        {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"}]}"#;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(list.as_bytes()).unwrap();
    let program = elf(".dep-v0", &packed.finish().unwrap());
    let mut tree = Tree::new();
    for (path, bytes) in
        [("bin/app", program), ("bin/other", elf(".dep-v0", b"no list")), ("bin/sh", elf("x", b""))]
    {
        let kind = Kind::File(Content::Bytes(bytes.into()));
        tree.insert(path.as_bytes().to_vec(), Inode { kind, mode: 0o755, ..Inode::directory() });
    }
    let bom = generate("app", &tree, &json!({})).unwrap();
    let found: Vec<&str> = bom.components.iter().map(|component| component.bom_ref.as_str()).collect();
    assert_eq!(
        found.iter().filter(|name| name.starts_with("pkg:")).collect::<Vec<_>>(),
        [&"pkg:cargo/serde@1.0.200"]
    );
}

/// Two packages built by rpmbuild, as stored by rpm 4.18, in pages of 512 bytes: the tree has two levels and every
/// header overflows its page. One of them is stored another dozen times.
const RPM: &[u8] = include_bytes!("../../testdata/rpmdb.sqlite");

/// The same headers as written by `db5.3_load` of Berkeley DB 5.3, in pages of 512 bytes, with one of the two stored
/// six times: eight buckets, RPM's package counter, and every header on overflow pages. `rpm -qa` with its own reader
/// (`bdb_ro`) lists the same.
const RPM_BDB: &[u8] = include_bytes!("../../testdata/rpm.Packages");

/// The same headers as written by RPM's own `rpmpkg.c`. A third one was removed: its slot is free.
const RPM_NDB: &[u8] = include_bytes!("../../testdata/rpm.Packages.db");

/// Each format by RPM's file name.
const RPM_FORMS: [(&str, &[u8]); 3] =
    [("rpmdb.sqlite", RPM), ("Packages", RPM_BDB), ("Packages.db", RPM_NDB)];

fn rpm_refs(path: &str, database: &[u8]) -> Vec<String> {
    let mut tree = tree(&[("etc/os-release", "ID=fedora\nVERSION_ID=40\n")]);
    let kind = Kind::File(Content::Bytes(database.into()));
    tree.insert(path.as_bytes().to_vec(), Inode { kind, ..Inode::directory() });
    let bom = generate("app", &tree, &json!({})).unwrap();
    let refs = bom.components.into_iter().map(|component| component.bom_ref);
    refs.filter(|name| name.starts_with("pkg:")).collect()
}

#[test]
fn rpm_packages_are_listed_from_each_database_format_in_each_directory() {
    let expected = [
        "pkg:rpm/fedora/libbig@0.9~rc1-1?arch=x86_64&distro=fedora-40",
        "pkg:rpm/fedora/tiny-tool@1.2-3.fc40?arch=noarch&distro=fedora-40&epoch=4",
    ];
    for folder in ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"] {
        for (name, database) in RPM_FORMS {
            assert_eq!(rpm_refs(&format!("{folder}/{name}"), database), expected, "{folder}/{name}");
        }
    }
}

#[test]
fn the_readable_part_of_a_damaged_rpm_database_is_listed() {
    for (name, database) in RPM_FORMS {
        let path = format!("var/lib/rpm/{name}");
        for cut in (0..database.len()).step_by(997) {
            let found = rpm_refs(&path, &database[..cut]);
            assert!(found.len() <= 2, "{found:?}");
        }
        for place in (0..database.len()).step_by(61) {
            let mut damaged = database.to_vec();
            damaged[place] ^= 0xff;
            let _found = rpm_refs(&path, &damaged);
        }
    }
}
