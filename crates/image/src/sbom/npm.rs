//! npm's packages: the `package.json` of every directory directly in a `node_modules`.
//!
//! Invariant: a `package.json` deeper inside a package, such as a test fixture, is not a package.

use std::io;

use serde::Deserialize;

use super::{Component, files, purl, text};
use crate::tree::{Tree, base, parent};

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

pub(super) fn packages(tree: &Tree) -> io::Result<Vec<Component>> {
    let mut components = Vec::new();
    for (path, content) in files(tree, &[b"/package.json"]) {
        if is_package(path) {
            components.extend(component(&text(content)?));
        }
    }
    Ok(components)
}

/// `…/node_modules/NAME/package.json` or `…/node_modules/@SCOPE/NAME/package.json`.
fn is_package(path: &[u8]) -> bool {
    let above = parent(parent(path));
    let above = if base(above).starts_with(b"@") { parent(above) } else { above };
    base(above) == b"node_modules"
}

fn component(json: &str) -> Option<Component> {
    let package: Package = serde_json::from_str(json).ok()?;
    let (namespace, name) = match package.name.split_once('/') {
        Some((scope, name)) => (vec![scope], name),
        None => (Vec::new(), package.name.as_str()),
    };
    let purl = purl::of("npm", &namespace, name, &package.version, &[]);
    Some(Component::new("library", &package.name, &package.version, Some(purl)))
}
