//! Layers in the forms written by tools that build images without a Dockerfile.

use super::*;

/// ko writes absolute names and no parent directories; jib's files have the modification time 1; Bazel and nix begin
/// with `./`.
#[test]
fn absolute_names_and_missing_directories_are_supported() {
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

/// A store with hard links between its files puts a link into one layer and its target into another; a later layer that
/// replaces the target's name does not change the link. Kaniko writes absolute targets.
#[test]
fn a_hard_link_to_a_file_of_a_lower_layer_refers_to_that_file() {
    let lower = Tar::new().file("nix/store/a/data", "shared").file("other", "o");
    let upper = Tar::new().link("nix/store/b/data", "nix/store/a/data").link("/opt/other", "/other");
    let (tree, _) = apply_tars(vec![lower, upper, Tar::new().file("other", "new")]).unwrap();
    assert_eq!(tree.entries.get(&b"nix/store/b/data"[..]), tree.entries.get(&b"nix/store/a/data"[..]));
    let listing = listing(&tree);
    for line in ["nix/store/b/data = shared", "opt/other = o", "other = new"] {
        assert!(listing.iter().any(|one| one == line), "{line} in {listing:?}");
    }
}

/// `git archive` and tools that process its output write a global header first; engines ignore it.
#[test]
fn a_global_header_changes_no_entry() {
    let mut tar = Tar::new();
    let record = b"52 comment=0123456789012345678901234567890123456789\n";
    tar = tar.entry(EntryType::XGlobalHeader, b"pax_global_header", b"", record);
    assert_eq!(listed(vec![tar.file("a", "1")]), ["a = 1"]);
}

/// Cuts a layer into pieces, as the two lazily fetched formats do.
fn pieces(tar: &[u8]) -> impl Iterator<Item = &[u8]> {
    tar.chunks(512)
}

/// eStargz ends with an empty member, whose extra field contains the position of the table of contents.
#[test]
fn a_lazily_fetched_layer_is_read_as_a_whole() {
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
