//! Layers as engines apply them.

mod hostile;
mod tools;

use std::io::Write;

use ::tar::{Builder, EntryType, Header};

use super::*;
use crate::limits::MAX_NAME;
use crate::oci::test_image::{Stored, pack};
use crate::tree::Kind;

/// Builds a layer. Names are written into the headers unchecked: the `tar` crate would refuse the invalid ones.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(content.len().try_into().unwrap());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), b"", content.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name.as_bytes(), b"", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }

    fn device(self, name: &str) -> Self {
        self.entry(EntryType::Char, name.as_bytes(), b"", b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn blob(bytes: &[u8]) -> Blob {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Blob::whole(file).unwrap()
}

fn layer(tar: &[u8], stored: Stored) -> Layer {
    let packed = pack(tar, stored);
    Layer { blob: blob(&packed), digest: Some(Digest::of(&packed)), diff_id: Digest::of(tar) }
}

fn apply_layers(layers: &[Layer], limits: &Limits) -> Result<(Tree, Notes), LayerError> {
    let mut tree = Tree::new();
    let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
    let notes = apply(&mut tree, &mut spool, layers, limits).map_err(|(_, error)| error)?;
    Ok((tree, notes))
}

fn apply_tars(tars: Vec<Tar>) -> Result<(Tree, Notes), LayerError> {
    let layers: Vec<_> = tars.into_iter().map(|tar| layer(&tar.bytes(), Stored::Plain)).collect();
    apply_layers(&layers, &Limits::default())
}

/// The tree, one line a name: contents of files, targets of links, a slash for directories.
fn listing(tree: &Tree) -> Vec<String> {
    let line = |(path, id): (&Vec<u8>, &crate::tree::InodeId)| {
        let path = String::from_utf8_lossy(path).into_owned();
        match &tree.inode(*id).unwrap().kind {
            Kind::Directory => format!("{path}/"),
            Kind::Fifo => format!("{path}|"),
            Kind::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Kind::File(content) => {
                let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
                content.read_exact_at(&mut bytes, 0).unwrap();
                format!("{path} = {}", String::from_utf8_lossy(&bytes))
            }
        }
    };
    tree.entries.iter().skip(1).map(line).collect()
}

fn listed(tars: Vec<Tar>) -> Vec<String> {
    listing(&apply_tars(tars).unwrap().0)
}

#[test]
fn later_layers_replace_and_whiteouts_hide() {
    let lower = || {
        Tar::new()
            .directory("a/")
            .file("a/one", "1")
            .file("a/two", "2")
            .directory("b/")
            .file("b/deep/x", "x")
            .file("c", "c")
    };
    let upper =
        Tar::new().file("a/one", "new").file("a/.wh.two", "").file(".wh.b", "").file(".wh.nothing", "");
    assert_eq!(listed(vec![lower(), upper]), ["a/", "a/one = new", "c = c"]);
}

#[test]
fn a_whiteout_preserves_the_files_of_its_own_layer_in_either_order() {
    let lower = || Tar::new().directory("a/").file("a/old", "1");
    let expected = ["a/", "a/new = 2"];
    let opaque_first = Tar::new().directory("a/").file("a/.wh..wh..opq", "").file("a/new", "2");
    let opaque_last = Tar::new().directory("a/").file("a/new", "2").file("a/.wh..wh..opq", "");
    assert_eq!(listed(vec![lower(), opaque_first]), expected);
    assert_eq!(listed(vec![lower(), opaque_last]), expected);
    let hidden_first = Tar::new().file(".wh.a", "").file("a/new", "2");
    let hidden_last = Tar::new().file("a/new", "2").file(".wh.a", "");
    assert_eq!(listed(vec![lower(), hidden_first]), expected);
    assert_eq!(listed(vec![lower(), hidden_last]), expected);
}

#[test]
fn types_replace_each_other_and_a_directory_keeps_its_contents() {
    let lower = || Tar::new().directory("d/").file("d/x", "x").symlink("l", "d").file("f", "f");
    let upper = Tar::new().directory("d/").directory("l/").file("l/y", "y").directory("f/");
    assert_eq!(listed(vec![lower(), upper]), ["d/", "d/x = x", "f/", "l/", "l/y = y"]);
    assert_eq!(listed(vec![lower(), Tar::new().file("d", "flat")]), ["d = flat", "f = f", "l -> d"]);
}

#[test]
fn a_parent_that_is_a_link_is_followed_inside_the_root() {
    let lower = || Tar::new().directory("usr/lib/").symlink("lib", "/usr/lib").symlink("new", "not/there");
    let upper = Tar::new().file("lib/x", "1").file("new/y", "2").link("hard", "lib/x").file("lib/.wh.z", "");
    let expected = [
        "hard = 1",
        "lib -> /usr/lib",
        "new -> not/there",
        "not/",
        "not/there/",
        "not/there/y = 2",
        "usr/",
        "usr/lib/",
        "usr/lib/x = 1",
    ];
    assert_eq!(listed(vec![lower(), upper]), expected);
}

#[test]
fn the_last_entry_of_a_name_wins_and_earlier_hard_links_keep_the_first() {
    let tar = Tar::new().file("a", "first").link("b", "a").file("a", "second");
    assert_eq!(listed(vec![tar]), ["a = second", "b = first"]);
}

#[test]
fn attributes_long_names_and_times_are_preserved() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(MAX_NAME));
    let capability = b"\x01\0\0\x02\0\x04\n\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let records: [(&str, &[u8]); 4] = [
        ("path", long.as_bytes()),
        ("mtime", b"1700000000.9"),
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.security.selinux", b"u:r:t"),
    ];
    let tars = vec![Tar::new().pax(&records).file("short", "x").file("plain", "y")];
    let (tree, notes) = apply_tars(tars).unwrap();
    let inode = tree.get(long.as_bytes()).unwrap();
    assert_eq!((inode.mtime, inode.mode), (1_700_000_000, 0o755));
    assert_eq!(inode.xattrs.get(&b"security.capability"[..]).map(Vec::as_slice), Some(&capability[..]));
    assert_eq!((inode.xattrs.len(), notes.texts.len()), (1, 1));
    assert_eq!(tree.get(b"plain").map(|inode| inode.mtime), Some(7));
}

#[test]
fn names_are_case_sensitive_bytes() {
    let tar =
        Tar::new().entry(EntryType::Regular, b"\xff\xfe", b"", b"1").file("README", "a").file("readme", "b");
    let (tree, _) = apply_tars(vec![tar]).unwrap();
    assert!(
        tree.get(b"\xff\xfe").is_some() && tree.get(b"README").is_some() && tree.get(b"readme").is_some()
    );
}

/// A file that is one hole, and one whose last megabyte is a hole, packed by GNU tar: their maps end with an empty
/// segment.
#[test]
fn sparse_files_that_end_in_a_hole_have_their_full_length() {
    let place = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", ""), ("tail", "begin")] {
        let mut file = std::fs::File::create(place.path().join(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.set_len(1 << 20).unwrap();
    }
    for form in ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"] {
        let mut command = std::process::Command::new("tar");
        command.arg("-C").arg(place.path()).args(["--sparse", "-cf", "-"]);
        command.args(format!("--format={form}").split(' ')).args(["empty", "tail"]);
        let packed = command.output().unwrap();
        assert!(packed.status.success(), "{form}: {}", String::from_utf8_lossy(&packed.stderr));
        let (tree, _) = apply_layers(&[layer(&packed.stdout, Stored::Gzip)], &Limits::default()).unwrap();
        for (name, content) in [("empty", ""), ("tail", "begin")] {
            let Kind::File(stored) = &tree.get(name.as_bytes()).unwrap().kind else { panic!("{form}") };
            let mut bytes = vec![7; 1 << 20];
            stored.read_exact_at(&mut bytes, 0).unwrap_or_else(|error| panic!("{form} {name}: {error}"));
            assert!(bytes.starts_with(content.as_bytes()), "{form} {name}");
            assert!(bytes[content.len()..].iter().all(|byte| *byte == 0), "{form} {name}");
        }
    }
}
