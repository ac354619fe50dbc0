//! Layers with what the tools write that make images without a Dockerfile, each as that tool is known to write it.

use super::*;

/// ko names files from the root on and no folder above them; jib's files are of the second 1; Bazel and nix begin with `./`.
#[test]
fn names_from_the_root_on_and_missing_folders_are_what_they_mean() {
    let ko = Tar::new().file("/ko-app/server", "go").symlink("/var/run/ko/link", "/ko-app/server");
    let nix = Tar::new().directory("./").directory("./nix/").file("./nix/store/abc-hello/bin/hello", "elf");
    let bazel = Tar::new().file("./app/deep/er/run", "1").directory("./app/").directory("app");
    let expected = [
        "app/",
        "app/deep/",
        "app/deep/er/",
        "app/deep/er/run = 1",
        "ko-app/",
        "ko-app/server = go",
        "nix/",
        "nix/store/",
        "nix/store/abc-hello/",
        "nix/store/abc-hello/bin/",
        "nix/store/abc-hello/bin/hello = elf",
        "var/",
        "var/run/",
        "var/run/ko/",
        "var/run/ko/link -> /ko-app/server",
    ];
    assert_eq!(listed(vec![ko, nix, bazel]), expected);
}

/// A store whose files are linked to each other puts a link into one layer and what it leads to into another; a later layer that
/// replaces the name leaves the link what it was. Kaniko names targets from the root on.
#[test]
fn a_hard_link_to_a_file_of_a_lower_layer_is_that_file() {
    let lower = Tar::new().file("nix/store/a/data", "shared").file("other", "o");
    let upper = Tar::new().link("nix/store/b/data", "nix/store/a/data").link("/opt/other", "/other");
    let (tree, _) = apply_tars(vec![lower, upper, Tar::new().file("other", "new")]).unwrap();
    assert_eq!(tree.entries.get(&b"nix/store/b/data"[..]), tree.entries.get(&b"nix/store/a/data"[..]));
    let listing = listing(&tree);
    for line in ["nix/store/b/data = shared", "opt/other = o", "other = new"] {
        assert!(listing.iter().any(|one| one == line), "{line} in {listing:?}");
    }
}

/// `git archive`, and what is packed after it, puts a global header in front; engines pass over it.
#[test]
fn a_global_header_changes_no_entry() {
    let mut tar = Tar::new();
    let record = b"52 comment=0123456789012345678901234567890123456789\n";
    tar = tar.entry(EntryType::XGlobalHeader, b"pax_global_header", b"", record);
    assert_eq!(listed(vec![tar.file("a", "1")]), ["a = 1"]);
}

/// Cuts a layer into pieces, as both forms do that can be fetched in part.
fn pieces(tar: &[u8]) -> impl Iterator<Item = &[u8]> {
    tar.chunks(512)
}

/// eStargz ends with a member of nothing, whose extra field says where the table of contents begins.
#[test]
fn a_layer_that_can_be_fetched_in_part_is_read_as_a_whole() {
    let tar = Tar::new()
        .file(".no.prefetch.landmark", "\x0f")
        .file("a", "1")
        .file("stargz.index.json", "{}")
        .bytes();
    let mut stargz: Vec<u8> = pieces(&tar).flat_map(|piece| pack(piece, Stored::Gzip)).collect();
    stargz.extend(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
    stargz.extend(b"0000000000000400STARGZ");
    stargz.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    // zstd:chunked ends with its table and a footer in frames that decoders skip.
    let mut chunked: Vec<u8> = pieces(&tar).flat_map(|piece| pack(piece, Stored::Zstd)).collect();
    for frame in [&[7_u8; 300][..], &[0; 64]] {
        chunked.extend(b"\x50\x2a\x4d\x18");
        chunked.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        chunked.extend(frame);
    }
    for packed in [stargz, chunked] {
        let layer =
            Layer { blob: blob(&packed), digest: Some(Digest::of(&packed)), diff_id: Digest::of(&tar) };
        let (tree, _) = apply_layers(&[layer], &Limits::default()).unwrap();
        assert_eq!(listing(&tree), [".no.prefetch.landmark = \x0f", "a = 1", "stargz.index.json = {}"]);
    }
}
