//! Alpine's packages: `/lib/apk/db/installed`.
//!
//! Format: each paragraph is a package, each line a letter, a colon and a value.

use std::io;

use super::{Component, Distribution, fields, purl, read};
use crate::tree::Tree;

/// The path of the database before and after Alpine merged `/usr`.
const INSTALLED: [&[u8]; 2] = [b"lib/apk/db/installed", b"usr/lib/apk/db/installed"];

pub(super) fn packages(tree: &Tree, distribution: &Distribution) -> io::Result<Vec<Component>> {
    let mut components = Vec::new();
    for path in INSTALLED {
        let text = read(tree, path)?.unwrap_or_default();
        components.extend(text.split("\n\n").filter_map(|paragraph| component(paragraph, distribution)));
    }
    Ok(components)
}

fn component(paragraph: &str, distribution: &Distribution) -> Option<Component> {
    let fields = fields(paragraph);
    let (name, version) = (*fields.get("P")?, *fields.get("V")?);
    let id = if distribution.id.is_empty() { "alpine" } else { &distribution.id };
    let tag = distribution.tag();
    let arch = fields.get("A").copied().unwrap_or_default();
    let purl = purl::of("apk", &[id], name, version, &[("arch", arch), ("distro", &tag)]);
    Some(Component::new("library", name, version, Some(purl)))
}
