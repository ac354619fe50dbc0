//! Archives are read back by our reader and by GNU cpio.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::tree::{Content, Inode, Kind, Tree};

fn file(bytes: &[u8]) -> Inode {
    Inode { mode: 0o644, kind: Kind::File(Content::Bytes(bytes.into())), ..Inode::directory() }
}

fn sample() -> Tree {
    let mut tree = Tree::new();
    tree.insert(b"bin".to_vec(), Inode::directory());
    let app =
        tree.insert(b"bin/app".to_vec(), Inode { mode: 0o755, mtime: 1_700_000_000, ..file(b"program") });
    tree.entries.insert(b"hard".to_vec(), app);
    tree.insert(b"fifo".to_vec(), Inode { kind: Kind::Fifo, ..Inode::directory() });
    tree.insert(b"link".to_vec(), Inode { kind: Kind::Symlink(b"bin/app".to_vec()), ..Inode::directory() });
    tree.insert(b"na\xffme".to_vec(), Inode { uid: 33, gid: 1000, ..file(b"") });
    tree
}

fn archive(tree: &Tree) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.tree(b"root", tree).unwrap();
    writer.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).unwrap();
        all.push((entry, content));
    }
    all
}

#[test]
fn a_tree_is_read_back_unchanged() {
    let all = read_all(&archive(&sample()));
    let names: Vec<_> = all.iter().map(|(entry, _)| entry.name.escape_ascii().to_string()).collect();
    assert_eq!(
        names,
        ["root", "root/bin", "root/bin/app", "root/fifo", "root/hard", "root/link", "root/na\\xffme"]
    );
    let find = |name: &[u8]| all.iter().find(|(entry, _)| entry.name == name).unwrap();
    let (app, content) = find(b"root/bin/app");
    assert_eq!(
        (app.mode, app.links, app.mtime, content.as_slice()),
        (0o100_755, 2, 1_700_000_000, &b"program"[..])
    );
    let (hard, content) = find(b"root/hard");
    assert_eq!((hard.inode, hard.links, content.len()), (app.inode, 2, 0));
    let (link, content) = find(b"root/link");
    assert!(link.is_symlink() && content == b"bin/app");
    assert_eq!((find(b"root/na\xffme").0.uid, find(b"root/na\xffme").0.gid), (33, 1000));
}

#[test]
fn gnu_cpio_lists_every_entry() {
    let Ok(mut child) =
        Command::new("cpio").args(["-it", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        // The round trip with our own reader is tested above; this is an additional check where cpio is installed.
        return;
    };
    child.stdin.take().unwrap().write_all(&archive(&sample())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count() - 1, 7);
}

#[test]
fn entries_that_the_kernel_would_skip_are_refused() {
    let mut writer = Writer::new(std::io::sink());
    let long = vec![b'n'; 4096];
    assert!(matches!(writer.directory(&long, Header::default()), Err(WriteError::TooLong(_))));
    assert!(matches!(writer.symlink(b"l", Header::default(), &long), Err(WriteError::TooLong(_))));
    let error = writer.file(b"big", Header::default(), 1 << 32, &mut std::io::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`big` has 4294967296 bytes, and a cpio archive can only hold files under 4 GiB"
    );
}

#[test]
fn damaged_archives_are_refused() {
    let good = archive(&sample());
    for cut in 0..good.len() {
        let mut reader = Reader::new(&good[..cut]);
        let ended = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        // The missing bytes may be the padding after the name of the last entry.
        assert!(ended || cut + 4 > good.len(), "{cut}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = Reader::new(bytes.as_slice());
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}
