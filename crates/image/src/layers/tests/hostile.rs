//! Malicious and damaged layers.

use proptest::prelude::*;

use super::*;
use crate::tree::Inode;

#[test]
fn devices_are_left_out_wherever_they_are_and_noted() {
    let (tree, notes) = apply_tars(vec![Tar::new().directory("dev/").device("dev/null")]).unwrap();
    assert_eq!((listing(&tree), notes.devices), (vec!["dev/".to_owned()], 1));
    let lower = Tar::new().file("etc/null", "a file").file("etc/x", "");
    let upper = Tar::new().device("etc/null").link("etc/again", "etc/null").device("dev/../etc/zero");
    let (tree, notes) = apply_tars(vec![lower, upper]).unwrap();
    // The file that a device replaces is removed as well, and so is a link to the device.
    assert_eq!(listing(&tree), ["etc/", "etc/x = "]);
    let left_out = ["etc/null", "etc/again", "etc/zero"];
    assert!(notes.texts.iter().zip(left_out).all(|(text, name)| text.contains(name)), "{notes:?}");
    assert_eq!(notes.texts.len(), left_out.len());
}

#[test]
fn links_that_point_above_the_root_resolve_as_in_a_container() {
    let tar = Tar::new()
        .file("etc/passwd", "x")
        .symlink("a", "../etc/passwd")
        .symlink("b", "/../etc/passwd")
        .link("c", "../../etc/passwd")
        .symlink("up", "..")
        .file("up/new", "y");
    let (tree, notes) = apply_tars(vec![tar]).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(
            tree.follow(name.as_bytes()).unwrap(),
            if name == "c" { &b"c"[..] } else { b"etc/passwd" }
        );
    }
    assert_eq!(tree.entries.get(&b"c"[..]), tree.entries.get(&b"etc/passwd"[..]));
    assert!(listing(&tree).contains(&"new = y".to_owned()));
    assert_eq!(notes.texts.len(), 4);
}

fn refused(tar: Tar) -> EntryError {
    match apply_tars(vec![tar]) {
        Err(LayerError::Entry { error, .. }) => error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn entries_that_would_leave_the_root_are_refused() {
    type Check = fn(&EntryError) -> bool;
    let cases: [(Tar, Check); 10] = [
        (Tar::new().file("../x", ""), |error| *error == EntryError::Traversal),
        (Tar::new().file("a/../../x", ""), |error| *error == EntryError::Traversal),
        (Tar::new().pax(&[("path", b"/../x")]).file("x", ""), |error| *error == EntryError::Traversal),
        (Tar::new().link("a", ".."), |error| matches!(error, EntryError::HardLinkTarget(_))),
        (Tar::new().link("a", "/etc/passwd"), |error| matches!(error, EntryError::DanglingHardLink(_))),
        (Tar::new().directory("d/").link("a", "d"), |error| matches!(error, EntryError::HardLinkTarget(_))),
        (Tar::new().file("a", "").link("a", "a"), |error| matches!(error, EntryError::HardLinkTarget(_))),
        (Tar::new().file(".wh...", ""), |error| *error == EntryError::Whiteout),
        (Tar::new().file("/", ""), |error| *error == EntryError::Root),
        (Tar::new().entry(EntryType::new(b'V'), b"v", b"", b""), |error| {
            matches!(error, EntryError::Type(b'V'))
        }),
    ];
    for (number, (tar, check)) in cases.into_iter().enumerate() {
        let error = refused(tar);
        assert!(check(&error), "{number}: {error:?}");
    }
}

#[test]
fn entries_with_unresolvable_paths_or_invalid_fields_are_refused() {
    let file_as_parent = Tar::new().file("f", "").file("f/x", "");
    assert!(matches!(refused(file_as_parent), EntryError::Parent(_)));
    let cycle = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "");
    assert!(matches!(refused(cycle), EntryError::Parent(FollowError::TooManyLinks)));
    let name = vec![b'n'; MAX_NAME + 1];
    assert!(matches!(refused(Tar::new().pax(&[("path", &name)]).file("x", "")), EntryError::Limit(_)));
    let owner: [(&str, &[u8]); 1] = [("uid", b"4294967296")];
    assert!(matches!(refused(Tar::new().pax(&owner).file("x", "")), EntryError::Owner));
}

#[test]
fn every_compression_gives_the_same_tree() {
    let tar = Tar::new().directory("a/").file("a/b", "content").bytes();
    for stored in [Stored::Plain, Stored::Gzip, Stored::Zstd] {
        let (tree, _) = apply_layers(&[layer(&tar, stored)], &Limits::default()).unwrap();
        assert_eq!(listing(&tree), ["a/", "a/b = content"], "{stored:?}");
    }
}

#[test]
fn a_layer_of_several_gzip_members_or_zstd_frames_is_one_layer() {
    let tar = Tar::new().file("a", "content").bytes();
    let (first, second) = tar.split_at(700);
    for stored in [Stored::Gzip, Stored::Zstd] {
        let packed = [pack(first, stored), pack(second, stored)].concat();
        let layer =
            Layer { blob: blob(&packed), digest: Some(Digest::of(&packed)), diff_id: Digest::of(&tar) };
        let (tree, _) = apply_layers(&[layer], &Limits::default()).unwrap();
        assert_eq!(listing(&tree), ["a = content"]);
    }
}

#[test]
fn wrong_digests_are_detected() {
    let tar = Tar::new().file("a", "content").bytes();
    let wrong = Some(Digest::of(b"other"));
    let bad_blob = Layer { digest: wrong, ..layer(&tar, Stored::Gzip) };
    let error = apply_layers(&[bad_blob], &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::Digest { what: "digest", .. }));
    let bad_tar = Layer { diff_id: Digest::of(b"other"), ..layer(&tar, Stored::Gzip) };
    let error = apply_layers(&[bad_tar], &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::Digest { what: "diff ID", .. }));
}

#[test]
fn bytes_after_the_archive_count_for_its_digests() {
    let mut tar = Tar::new().file("a", "content").bytes();
    let original = Digest::of(&tar);
    tar.extend_from_slice(b"hidden");
    let layer = Layer { diff_id: original, ..layer(&tar, Stored::Gzip) };
    assert!(matches!(apply_layers(&[layer], &Limits::default()), Err(LayerError::Digest { .. })));
}

#[test]
fn truncated_layers_are_refused() {
    let tar = Tar::new().file("a", &"content".repeat(300)).bytes();
    for stored in [Stored::Plain, Stored::Gzip, Stored::Zstd] {
        let packed = pack(&tar, stored);
        for cut in (0..packed.len()).step_by(7) {
            // The blob's digest matches: the damage happened before the image was built.
            let digest = Some(Digest::of(&packed[..cut]));
            let layer = Layer { blob: blob(&packed[..cut]), digest, diff_id: Digest::of(&tar) };
            assert!(apply_layers(&[layer], &Limits::default()).is_err(), "{stored:?} cut at {cut}");
        }
    }
}

#[test]
fn decompression_bombs_are_stopped_by_their_unpacked_size_and_zeros_are_accepted() {
    let zeros = "\0".repeat(4 << 20);
    let tar = Tar::new().file("zeros", &zeros).bytes();
    for stored in [Stored::Gzip, Stored::Zstd] {
        let limits = Limits { unpacked: 5 << 20, ..Limits::default() };
        assert!(apply_layers(&[layer(&tar, stored)], &limits).is_ok(), "{stored:?}");
        let limits = Limits { unpacked: 3 << 20, ..Limits::default() };
        let error = apply_layers(&[layer(&tar, stored)], &limits).unwrap_err();
        assert!(matches!(&error, LayerError::Limit(limit) if limit.limit == 3 << 20), "{error:?}");
    }
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let error = apply_layers(&[layer(&tar, Stored::Plain)], &limits).unwrap_err();
    assert!(matches!(&error, LayerError::Limit(limit) if limit.limit == 1 << 20), "{error:?}");
    // Two layers, each within the limit.
    let limits = Limits { unpacked: 6 << 20, ..Limits::default() };
    let error = apply_layers(&[layer(&tar, Stored::Plain), layer(&tar, Stored::Plain)], &limits).unwrap_err();
    assert!(matches!(&error, LayerError::Limit(_)), "{error:?}");
}

#[test]
fn too_many_names_and_too_much_metadata_are_refused() {
    let many = || Tar::new().file("a", "").file("b", "").file("c", "").bytes();
    let limits = Limits { entries: 2, ..Limits::default() };
    assert!(matches!(apply_layers(&[layer(&many(), Stored::Plain)], &limits), Err(LayerError::Limit(_))));
    let deep = Tar::new().file(&"d/".repeat(40), "").bytes();
    let limits = Limits { entries: 39, ..Limits::default() };
    assert!(matches!(apply_layers(&[layer(&deep, Stored::Plain)], &limits), Err(LayerError::Limit(_))));
    let limits = Limits { metadata: 1000, ..Limits::default() };
    assert!(matches!(apply_layers(&[layer(&deep, Stored::Plain)], &limits), Err(LayerError::Limit(_))));
    let limits = Limits { metadata: 2, ..Limits::default() };
    assert!(matches!(apply_layers(&[layer(&many(), Stored::Plain)], &limits), Err(LayerError::Limit(_))));
}

#[test]
fn whiteouts_count_as_entries() {
    for name in [".wh.a", ".wh..wh..opq", ".wh..wh.aufs"] {
        let tar = Tar::new().file("a", "").file(name, "").file(name, "").bytes();
        let limits = Limits { entries: 2, ..Limits::default() };
        let error = apply_layers(&[layer(&tar, Stored::Plain)], &limits).unwrap_err();
        assert!(matches!(&error, LayerError::Limit(limit) if limit.found == 3), "{name}: {error:?}");
    }
}

#[test]
fn repeated_whiteouts_examine_a_name_once_per_layer() {
    const FILES: usize = 500;
    let mut lower = Tar::new();
    let mut upper = Tar::new();
    for number in 0..FILES {
        lower = lower.file(&format!("a/{number}"), "");
        // Both would examine everything that the layer itself has put into the directory.
        upper = upper.file(&format!("a/{number}"), "").file("a/.wh..wh..opq", "").file(".wh.a", "");
    }
    let (mut tree, mut spool) = (Tree::new(), Spool::new(&std::env::temp_dir()).unwrap());
    let limits = Limits::default();
    let mut layering = Layering::new(&mut tree, &mut spool, &limits);
    let (lower, upper) = (layer(&lower.bytes(), Stored::Plain), layer(&upper.bytes(), Stored::Plain));
    for layer in [&lower, &upper, &upper] {
        apply_one(&mut layering, layer, &limits).unwrap();
    }
    assert_eq!(layering.examined, 2 * FILES, "once in each of the two layers with whiteouts");
    assert_eq!(listing(&tree).len(), 1 + FILES);
}

#[test]
fn two_hundred_layers_are_applied_and_too_many_are_refused() {
    let tars: Vec<_> =
        (0..200).map(|n| Tar::new().file("count", &n.to_string()).file(&format!("f{n}"), "")).collect();
    let (tree, _) = apply_tars(tars).unwrap();
    assert_eq!(tree.entries.len(), 202);
    assert!(listing(&tree).contains(&"count = 199".to_owned()));
    assert_eq!(tree.inodes.len(), 202);
    let one = layer(&Tar::new().bytes(), Stored::Plain);
    assert!(matches!(apply_layers(&vec![one; 1001], &Limits::default()), Err(LayerError::Limit(_))));
}

#[test]
fn anything_but_a_tar_is_refused() {
    for bytes in [&b"hello"[..], &[7; 2000], b"\xfd7zXZ\0 and so on", b"BZh9"] {
        let layer = Layer { blob: blob(bytes), digest: None, diff_id: Digest::of(bytes) };
        assert!(apply_layers(&[layer], &Limits::default()).is_err());
    }
}

proptest! {
    /// Any two layers give a consistent tree: every name has a parent, and every parent is a directory.
    #[test]
    fn any_layers_give_a_tree_or_an_error(choices in proptest::collection::vec((0..6_usize, 0..8_usize, 0..8_usize, 0..2_usize), 0..24)) {
        const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "b", "b/a", "c/.wh.a", ".wh.a", "a/.wh..wh..opq"];
        let mut tars = [Tar::new(), Tar::new()];
        for (kind, name, target, layer) in choices {
            let tar = std::mem::replace(&mut tars[layer], Tar::new());
            tars[layer] = match kind {
                0 => tar.file(NAMES[name], "x"),
                1 | 2 => tar.directory(NAMES[name]),
                3 => tar.symlink(NAMES[name], NAMES[target]),
                4 => tar.link(NAMES[name], NAMES[target]),
                _ => tar.entry(EntryType::Fifo, NAMES[name].as_bytes(), b"", b""),
            };
        }
        if let Ok((tree, _)) = apply_tars(tars.into()) {
            for path in tree.entries.keys().filter(|path| !path.is_empty()) {
                prop_assert!(tree.get(crate::tree::parent(path)).is_some_and(Inode::is_directory), "{path:?}");
            }
        }
    }

    /// No bytes make the reader panic, loop or exhaust memory.
    #[test]
    fn any_bytes_give_a_layer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let layer = Layer { blob: blob(&bytes), digest: None, diff_id: Digest::of(&bytes) };
        let _result = apply_layers(&[layer], &Limits::default());
    }

    /// Nor do valid layers with some bytes changed.
    #[test]
    fn changed_layers_give_a_layer_or_an_error(changes in proptest::collection::vec((0..4096_usize, any::<u8>()), 1..8)) {
        let mut tar = Tar::new().directory("a/").file("a/b", "x").symlink("l", "a").link("h", "a/b")
            .pax(&[("path", b"long"), ("size", b"1")]).file("x", "y").bytes();
        for (place, byte) in changes {
            let place = place % tar.len();
            tar[place] = byte;
        }
        let _result = apply_layers(&[layer(&tar, Stored::Plain)], &Limits::default());
    }
}
