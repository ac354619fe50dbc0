//! EROFS images are written and read back: random trees with our own reader, and with `fsck.erofs` if it is installed.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;

use crate::erofs::read::{Entry, EntryKind, Error as ReadError, Image};
use crate::erofs::{Compression, Error, Options, TreeError, write};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};
use proptest::prelude::*;

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn inode(kind: Kind) -> Inode {
    Inode { mode: 0o644, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: BTreeMap::new(), kind }
}

fn file(bytes: Vec<u8>) -> Inode {
    inode(Kind::File(Content::Bytes(Arc::from(bytes))))
}

fn empty() -> Tree {
    let mut tree = Tree::default();
    add(&mut tree, b"", Inode { mode: 0o755, ..inode(Kind::Directory) });
    tree
}

fn add(tree: &mut Tree, path: &[u8], inode: Inode) -> InodeId {
    let id = InodeId(tree.inodes.len());
    tree.inodes.push(inode);
    tree.entries.insert(path.to_vec(), id);
    id
}

fn pack(tree: &Tree, compression: Compression, workers: usize) -> Result<Vec<u8>, Error> {
    pack_with(tree, &Options { compression, pack_small: true, workers: NonZeroUsize::new(workers).unwrap() })
}

fn pack_with(tree: &Tree, options: &Options) -> Result<Vec<u8>, Error> {
    let mut out = Cursor::new(Vec::new());
    let summary = write(tree, options, &mut out)?;
    assert_eq!(summary.length, u64::try_from(out.get_ref().len()).unwrap());
    assert_eq!(summary.length % 4096, 0);
    Ok(out.into_inner())
}

fn open(bytes: Vec<u8>) -> Result<Image, ReadError> {
    Image::open(Content::Bytes(Arc::from(bytes)))
}

fn entries(image: &Image) -> Vec<Entry> {
    let mut entries = Vec::new();
    image
        .walk(|entry| {
            entries.push(entry.clone());
            Ok(())
        })
        .unwrap();
    entries
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
    content.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Asserts that an image contains exactly the files of a tree.
fn assert_same(tree: &Tree, image: &Image) {
    let entries = entries(image);
    assert_eq!(entries.len(), tree.entries.len());
    let mut nodes = BTreeMap::new();
    for entry in &entries {
        let id = tree.entries[&entry.path];
        let inode = &tree.inodes[id.0];
        assert_eq!(*nodes.entry(id).or_insert(entry.node), entry.node, "hard links share a node");
        assert_eq!((entry.mode, entry.uid, entry.gid), (inode.mode, inode.uid, inode.gid));
        assert_eq!((entry.mtime, &entry.xattrs), (inode.mtime, &inode.xattrs));
        match (&entry.kind, &inode.kind) {
            (EntryKind::Directory, Kind::Directory) | (EntryKind::Fifo, Kind::Fifo) => {}
            (EntryKind::Symlink(found), Kind::Symlink(target)) => assert_eq!(found, target),
            (EntryKind::File(size), Kind::File(content)) => {
                let mut found = Vec::new();
                assert_eq!(image.copy(entry.node, &mut found).unwrap(), *size);
                assert!(found == bytes_of(content), "{} differs", entry.path.escape_ascii());
                assert_eq!(entry.links, links(tree, id));
            }
            (found, _) => panic!("{} is a {found:?}", entry.path.escape_ascii()),
        }
    }
    let mut distinct: Vec<u64> = nodes.into_values().collect();
    let inodes = distinct.len();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), inodes, "different inodes have different nodes");
}

fn links(tree: &Tree, id: InodeId) -> u32 {
    u32::try_from(tree.entries.values().filter(|other| **other == id).count()).unwrap()
}

/// Bytes that compress about as well as text, or not at all.
fn content(length: usize, compressible: bool, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| if compressible { b"abcdefgh "[usize::from(next() % 9)] } else { next() }).collect()
}

/// Describes one file of a random tree.
#[derive(Clone, Debug)]
struct Plan {
    name: Vec<u8>,
    directory: prop::sample::Index,
    kind: u8,
    length: usize,
    seed: u64,
    owner: u32,
    mtime: i64,
    value: Option<Vec<u8>>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let name = prop_oneof![
        9 => prop::collection::vec(any::<u8>().prop_filter("usable", |byte| !b"/\0".contains(byte)), 1..20),
        1 => prop::collection::vec(1_u8..0x2f, 255..=255),
    ];
    let length = prop_oneof![4 => 0_usize..5_000, 2 => 4_000_usize..70_000, 1 => 60_000_usize..300_000];
    let owner = prop_oneof![Just(0_u32), 0..70_000_u32, Just(u32::MAX)];
    let value = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..600));
    let numbers = (any::<u8>(), length, any::<u64>(), owner, any::<i64>());
    (name, any::<prop::sample::Index>(), numbers, value).prop_map(|(name, directory, numbers, value)| {
        let (kind, length, seed, owner, mtime) = numbers;
        Plan { name, directory, kind, length, seed, owner, mtime, value }
    })
}

fn grow(plans: &[Plan]) -> Tree {
    let mut tree = empty();
    let mut directories = vec![Vec::new()];
    let mut files = Vec::new();
    for plan in plans {
        let parent = plan.directory.get(&directories).clone();
        let path =
            if parent.is_empty() { plan.name.clone() } else { [&parent, &b"/"[..], &plan.name].concat() };
        if tree.entries.contains_key(&path) || plan.name == b"." || plan.name == b".." {
            continue;
        }
        if plan.kind % 8 == 7 && !files.is_empty() {
            tree.entries.insert(path, *plan.directory.get(&files));
            continue;
        }
        let kind = kind(plan);
        if matches!(kind, Kind::Directory) {
            directories.push(path.clone());
        }
        let is_file = matches!(kind, Kind::File(_));
        let xattrs = plan.value.iter().map(|value| (b"user.test".to_vec(), value.clone())).collect();
        let (uid, gid) = (plan.owner, plan.owner / 2);
        let id = add(&mut tree, &path, Inode { mode: 0o4751, uid, gid, mtime: plan.mtime, xattrs, kind });
        if is_file {
            files.push(id);
        }
    }
    tree
}

fn kind(plan: &Plan) -> Kind {
    match plan.kind % 8 {
        0 | 1 => Kind::Directory,
        2 => Kind::Symlink(vec![b'x'; plan.length % 4094 + 1]),
        3 => Kind::Fifo,
        other => Kind::File(Content::Bytes(Arc::from(content(plan.length, other != 4, plan.seed)))),
    }
}

/// The superblock's `uuid` field (`fs/erofs/erofs_fs.h`).
fn uuid(image: &[u8]) -> &[u8] {
    &image[1024 + 48..1024 + 64]
}

#[test]
fn the_uuid_of_an_image_is_derived_from_its_content() {
    let tree = |text: &str, mtime| {
        let mut tree = empty();
        add(&mut tree, b"a", Inode { mtime, ..file(text.into()) });
        tree.inodes[0].mtime = mtime;
        pack(&tree, Compression::Zstd, 2).unwrap()
    };
    let first = tree("one", 5);
    assert_ne!(uuid(&first), [0; 16]);
    assert_eq!(uuid(&first), uuid(&tree("one", 5)));
    assert_ne!(uuid(&first), uuid(&tree("two", 5)));
    assert_ne!(uuid(&first), uuid(&tree("one", 6)), "the time that most files share is in the superblock");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_written_tree_is_read_back(plans in prop::collection::vec(plan(), 0..60), choice in 0_usize..3, pack_small: bool) {
        let tree = grow(&plans);
        let options = Options { compression: ALL[choice], pack_small, workers: NonZeroUsize::MIN };
        assert_same(&tree, &open(pack_with(&tree, &options).unwrap()).unwrap());
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_threads(plans in prop::collection::vec(plan(), 0..30)) {
        let tree = grow(&plans);
        let one = pack(&tree, Compression::Zstd, 1).unwrap();
        prop_assert!(one == pack(&tree, Compression::Zstd, 3).unwrap());
    }

    #[test]
    fn a_damaged_image_is_an_error_or_another_tree_but_never_a_panic(
        plans in prop::collection::vec(plan(), 1..12),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut bytes = pack(&grow(&plans), Compression::Lz4, 1).unwrap();
        for (place, value) in damage {
            // The superblock has a checksum; this test damages the blocks after it.
            let place = 4096 + place.index(bytes.len() - 4096);
            bytes[place] = value;
        }
        let image = open(bytes).unwrap();
        let mut files = Vec::new();
        let walked = image.walk(|entry| {
            if let EntryKind::File(size) = entry.kind && size < 1 << 24 {
                files.push(entry.node);
            }
            Ok(())
        });
        prop_assert!(walked.is_ok() || !walked.unwrap_err().to_string().is_empty());
        for node in files {
            let _length = image.copy(node, &mut std::io::sink());
        }
    }
}

#[test]
fn an_empty_tree_has_only_a_root() {
    for compression in ALL {
        let tree = empty();
        assert_same(&tree, &open(pack(&tree, compression, 1).unwrap()).unwrap());
    }
}

#[test]
fn a_directory_of_many_names_spans_blocks() {
    let mut tree = empty();
    for number in 0..3000 {
        add(&mut tree, format!("file with a number {number}").as_bytes(), file(vec![b'x'; number % 7]));
    }
    assert_same(&tree, &open(pack(&tree, Compression::Lz4, 2).unwrap()).unwrap());
}

#[test]
fn an_inode_without_a_name_is_omitted() {
    let mut tree = empty();
    tree.inodes.push(file(b"unreferenced".to_vec()));
    assert_eq!(entries(&open(pack(&tree, Compression::Zstd, 1).unwrap()).unwrap()).len(), 1);
}

#[test]
fn an_unsupported_file_is_refused_by_name() {
    let long = vec![b'n'; 256];
    let cases: [(&[u8], Inode, TreeError); 8] = [
        (b"missing/file", file(Vec::new()), TreeError::NoParent),
        (b"..", file(Vec::new()), TreeError::Name),
        (b"a\0b", file(Vec::new()), TreeError::Name),
        (&long, file(Vec::new()), TreeError::LongName),
        (b"link", inode(Kind::Symlink(Vec::new())), TreeError::Target),
        (b"link", inode(Kind::Symlink(vec![b'x'; 4096])), TreeError::Target),
        (b"mode", Inode { mode: 0o10_000, ..file(Vec::new()) }, TreeError::Mode),
        (
            b"attribute",
            Inode { xattrs: [(b"odd.name".to_vec(), Vec::new())].into(), ..file(Vec::new()) },
            TreeError::Attribute("odd.name".into()),
        ),
    ];
    for (path, inode, expected) in cases {
        let mut tree = empty();
        add(&mut tree, path, inode);
        match pack(&tree, Compression::None, 1) {
            Err(Error::Tree { error, .. }) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_directory_with_two_names_and_a_file_as_a_parent_are_refused() {
    let mut tree = empty();
    let id = add(&mut tree, b"one", inode(Kind::Directory));
    tree.entries.insert(b"two".to_vec(), id);
    let refused = pack(&tree, Compression::None, 1);
    assert!(matches!(refused, Err(Error::Tree { error: TreeError::LinkedDirectory, .. })));
    let mut tree = empty();
    add(&mut tree, b"file", file(Vec::new()));
    add(&mut tree, b"file/below", file(Vec::new()));
    let refused = pack(&tree, Compression::None, 1);
    assert!(matches!(refused, Err(Error::Tree { error: TreeError::NoParent, .. })));
}

#[test]
fn a_truncated_or_changed_superblock_is_refused() {
    let bytes = pack(&empty(), Compression::None, 1).unwrap();
    let mut altered = bytes.clone();
    altered[1100] ^= 1;
    assert!(matches!(open(altered), Err(ReadError::Damaged("the superblock's checksum is wrong"))));
    assert!(matches!(open(bytes[..5000].to_vec()), Err(ReadError::Damaged(_))));
    assert!(matches!(open(bytes[..100].to_vec()), Err(ReadError::Damaged(_))));
}

/// A tree that uses each layout, for the reference tool.
fn sample() -> Tree {
    let mut tree = empty();
    for (number, length) in [0, 1, 4000, 4096, 4097, 65_535, 65_536, 65_537, 200_000].into_iter().enumerate()
    {
        let path = format!("text {number}");
        add(&mut tree, path.as_bytes(), file(content(length, true, 7)));
        let path = format!("noise {number}");
        add(&mut tree, path.as_bytes(), Inode { uid: 70_000, ..file(content(length, false, 9)) });
    }
    let xattrs = [(b"user.a".to_vec(), vec![1; 3]), (b"security.capability".to_vec(), vec![2; 20])].into();
    add(&mut tree, b"attributes", Inode { xattrs, ..file(content(9000, true, 3)) });
    add(&mut tree, b"directory", Inode { mode: 0o755, ..inode(Kind::Directory) });
    for number in 0..300 {
        add(&mut tree, format!("directory/entry {number}").as_bytes(), file(vec![b'y'; number]));
    }
    add(&mut tree, b"link", inode(Kind::Symlink(b"directory/entry 7".to_vec())));
    add(&mut tree, b"long link", inode(Kind::Symlink(vec![b'z'; 4095])));
    add(&mut tree, b"pipe", inode(Kind::Fifo));
    tree
}

#[test]
fn the_reference_tool_finds_no_errors() {
    let Ok(found) = Command::new("fsck.erofs").arg("--help").output() else { return };
    assert!(!found.stderr.is_empty() || !found.stdout.is_empty());
    let folder = tempfile::tempdir().unwrap();
    // erofs-utils 1.5, the oldest version in use, supports LZ4 but neither Zstandard nor small files that share chunks.
    for (number, compression) in [Compression::None, Compression::Lz4].into_iter().enumerate() {
        let tree = sample();
        let image = folder.path().join(format!("{number}.erofs"));
        let target = folder.path().join(format!("{number}"));
        let options = Options { compression, pack_small: false, workers: NonZeroUsize::MIN };
        std::fs::write(&image, pack_with(&tree, &options).unwrap()).unwrap();
        let extract = format!("--extract={}", target.display());
        let checked = Command::new("fsck.erofs").arg(extract).arg(&image).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        for (path, id) in &tree.entries {
            if let Kind::File(content) = &tree.inodes[id.0].kind {
                let found = std::fs::read(target.join(str::from_utf8(path).unwrap())).unwrap();
                assert!(found == bytes_of(content), "{} differs", path.escape_ascii());
            }
        }
    }
}
