//! Rust programs that contain a list of their crates, as embedded by `cargo auditable`.
//!
//! Invariant: only the embedded list is used; one that cannot be read is ignored. The library that reads it limits the
//! decompressed size.

use std::io;

use auditable_info::json_from_slice;
use serde::Deserialize;

use super::{Component, MAX_FILE, purl};
use crate::tree::{Content, Kind, Tree};

/// The magic number of ELF files.
const ELF: &[u8] = b"\x7fELF";

/// Maximum size of a decompressed list in bytes: a thousand crates take a tenth of it.
const MAX_LIST: usize = 1 << 20;

/// The execute permission bits; a program has at least one of them.
const EXECUTABLE: u32 = 0o111;

pub(super) fn packages(tree: &Tree) -> io::Result<Vec<Component>> {
    let mut components = Vec::new();
    for id in tree.entries.values() {
        if let Some(inode) = tree.inode(*id).filter(|inode| inode.mode & EXECUTABLE != 0)
            && let Kind::File(content) = &inode.kind
            && is_program(content)?
        {
            components.extend(listed(content)?);
        }
    }
    Ok(components)
}

fn is_program(content: &Content) -> io::Result<bool> {
    let mut head = [0; ELF.len()];
    let fits = (64..=MAX_FILE).contains(&content.len());
    if fits {
        content.read_exact_at(&mut head, 0)?;
    }
    Ok(head == ELF)
}

fn listed(content: &Content) -> io::Result<Vec<Component>> {
    let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or_default()];
    content.read_exact_at(&mut bytes, 0)?;
    let list =
        json_from_slice(&bytes, MAX_LIST).ok().and_then(|text| serde_json::from_str::<List>(&text).ok());
    let packages = list.map(|list| list.packages).unwrap_or_default();
    Ok(packages.iter().filter(|package| package.kind == RUNTIME).map(Package::component).collect())
}

/// The relevant part of the list's format (`cargo auditable`, PARSING.md).
#[derive(Deserialize)]
struct List {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default = "runtime")]
    kind: String,
}

/// The kind of crates that are part of the program, and not only needed to build it.
const RUNTIME: &str = "runtime";

fn runtime() -> String {
    RUNTIME.to_owned()
}

impl Package {
    fn component(&self) -> Component {
        let purl = purl::of("cargo", &[], &self.name, &self.version, &[]);
        Component::new("library", &self.name, &self.version, Some(purl))
    }
}
