//! Bills of roots as distributions and package managers leave them.

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
    let bom = bill("app", &tree(files), &json!({})).unwrap();
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
fn the_operating_system_is_listed_as_its_record_has_it() {
    let record = json!({
        "version": "1.2", "crates": ["libc 0.2.1", "broken"],
        "kernel": {"sha256": "ab", "release": "6.12.9", "source": {"package": "linux-source-6.12"}},
    });
    let bom = bill("app", &Tree::new(), &record).unwrap();
    let seen: Vec<_> =
        bom.components.iter().map(|part| (part.bom_ref.as_str(), part.version.as_str())).collect();
    let expected = [
        ("operating-system/cloister", "1.2"),
        ("operating-system/linux", "6.12.9"),
        ("pkg:cargo/libc@0.2.1", "0.2.1"),
    ];
    assert_eq!(seen, expected);
}
