//! Python's distributions: `*.dist-info/METADATA` and the older `*.egg-info`.
//!
//! Invariant: name and version are taken from the metadata, not from the directory's name.

use std::io;

use super::{Component, fields, files, purl, text};
use crate::tree::Tree;

const ENDINGS: [&[u8]; 3] = [b".dist-info/METADATA", b".egg-info/PKG-INFO", b".egg-info"];

pub(super) fn packages(tree: &Tree) -> io::Result<Vec<Component>> {
    let mut components = Vec::new();
    for (_, content) in files(tree, &ENDINGS) {
        components.extend(component(&text(content)?));
    }
    Ok(components)
}

fn component(metadata: &str) -> Option<Component> {
    // The description, which may contain any text, follows the first empty line.
    let fields = fields(metadata.split("\n\n").next()?);
    let (name, version) = (*fields.get("Name")?, *fields.get("Version")?);
    // The package URL specification: PyPI does not distinguish `-`, `_` and case, so the name is normalized.
    let normal = name.to_lowercase().replace('_', "-");
    Some(Component::new("library", name, version, Some(purl::of("pypi", &[], &normal, version, &[]))))
}
