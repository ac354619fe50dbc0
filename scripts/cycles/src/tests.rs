//! Cycles in generated crates, each of which the check must find.

use super::*;

/// A workspace with the member `one`, which has these files below its `src`.
fn plant(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let member = root.path().join("one");
    for (name, text) in files {
        let path = member.join("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(member.join("Cargo.toml"), "[package]\n").unwrap();
    fs::write(root.path().join("Cargo.toml"), "[workspace]\nmembers = [\n  \"one\",\n]\n").unwrap();
    root
}

/// Whether the check passed, and its output.
fn checked(files: &[(&str, &str)], known: &[(&str, usize, usize)]) -> (bool, String) {
    let root = plant(files);
    let mut out = Vec::new();
    let sound = check(root.path(), &members(root.path()).unwrap(), known, &mut out).unwrap();
    (sound, String::from_utf8(out).unwrap())
}

const LIB: (&str, &str) = ("lib.rs", "mod a;\nmod b;\n");

#[test]
fn files_that_use_each_other_are_a_cycle() {
    let files = [
        LIB,
        ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
        ("b.rs", "pub struct B;\nfn f(_: &super::a::A) {}\n"),
    ];
    let (sound, printed) = checked(&files, &[]);
    assert!(!sound);
    assert!(
        printed.contains("cycle between files: 2 files; one/src/a.rs:1 names crate::b::B, one/src/b.rs:2"),
        "{printed}"
    );
    assert!(printed.contains("cycle between directories: a → b → a"), "{printed}");
}

#[test]
fn a_parent_that_calls_its_child_and_defines_a_type_for_it_is_a_cycle() {
    let parent = ("a/mod.rs", "mod c;\npub struct A;\npub fn f() { c::g(&A) }\n");
    let child = ("a/c.rs", "use super::A;\npub fn g(_: &A) {}\n");
    let (sound, printed) = checked(&[LIB, ("b.rs", ""), parent, child], &[]);
    assert!(
        !sound && printed.contains("cycle between files") && !printed.contains("directories: a"),
        "{printed}"
    );
}

#[test]
fn a_re_exported_name_is_a_use_of_its_definition() {
    let parent = ("a/mod.rs", "mod c;\nmod d;\npub use c::C;\npub use d::*;\n");
    let children = [("a/c.rs", "use super::D;\npub struct C(D);\n"), ("a/d.rs", "pub struct D;\n")];
    let user = ("b.rs", "use crate::a;\nfn f(_: a::C) {}\n");
    let (sound, printed) = checked(&[LIB, user, parent, children[0], children[1]], &[]);
    assert!(sound, "{printed}");
    let back = ("a/d.rs", "pub struct D;\nfn f(_: &super::C) {}\n");
    let (sound, printed) = checked(&[LIB, user, parent, children[0], back], &[]);
    assert!(!sound && printed.contains("a/c.rs:1 names super::D, one/src/a/d.rs:2"), "{printed}");
}

#[test]
fn the_root_of_a_crate_is_a_folder_like_any_other() {
    let root = ("lib.rs", "mod a;\npub struct R;\npub fn f() { a::g(&R) }\n");
    let (sound, printed) = checked(&[root, ("a.rs", "pub fn g(_: &crate::R) {}\n")], &[]);
    assert!(!sound && printed.contains("cycle between directories: the root → a → the root"), "{printed}");
}

#[test]
fn tests_may_use_everything() {
    let files = [
        LIB,
        ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
        ("b.rs", "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n"),
    ];
    assert_eq!(checked(&files, &[]), (true, String::new()));
}

#[test]
fn a_known_cycle_is_printed_and_must_be_removed_from_the_list_once_it_is_resolved() {
    let cycle =
        [LIB, ("a.rs", "use crate::b::B;\npub struct A(B);\n"), ("b.rs", "pub struct B(crate::a::A);\n")];
    let (sound, printed) = checked(&cycle, &[("one", 1, 1)]);
    assert!(sound && printed.contains("one: known cycle between files"), "{printed}");
    let gone = [LIB, ("a.rs", ""), ("b.rs", "")];
    let (sound, printed) = checked(&gone, &[("one", 1, 1)]);
    assert!(
        !sound && printed.contains("0 cycles between files and 0 between directories, 1 and 1 are known"),
        "{printed}"
    );
}
