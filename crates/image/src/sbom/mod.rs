//! The software in an enclave, as a `CycloneDX` software bill of materials (SBOM).
//!
//! Invariant: it lists what package managers have recorded in the application's root, and what the release's record
//! states about the operating system; nothing is guessed. It contains no time, serial number or anything else that
//! differs between builds: the same enclave has the same SBOM.
//!
//! The sources are the databases of dpkg, apk and RPM, the metadata of Python distributions and npm packages, and the
//! lists in Rust programs built with `cargo auditable`. No maintained library reads the lists in Go programs. Other
//! programs that were copied into the image by hand are in no database and therefore not in the SBOM.
//!
//! Sources: `CycloneDX` 1.6 (ECMA-424), the package URL specification (ECMA-427).

mod apk;
mod bdb;
mod dpkg;
mod ndb;
mod npm;
mod purl;
mod python;
mod rpm;
mod rust;
mod sqlite;

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::Value;

use crate::tree::{Content, Kind, Tree};

/// Maximum size of a database or metadata file that is read, in bytes. The dpkg database of a full desktop has 8 MiB.
const MAX_FILE: u64 = 64 << 20;

/// Maximum number of components: the size of a distribution's whole archive.
const MAX_COMPONENTS: usize = 100_000;

/// Maximum length in bytes of a name, version or similar field that may be repeated many times. rpmbuild puts the name,
/// version, release and architecture of a package into a file name, which Linux limits to 255 bytes.
const MAX_TEXT: usize = 1024;

/// A software bill of materials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bom {
    #[serde(rename = "bomFormat")]
    format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata,
    /// Sorted by `bom_ref`.
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Metadata {
    component: Component,
}

/// One piece of software.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Unique in the SBOM.
    #[serde(rename = "bom-ref")]
    bom_ref: String,
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

/// Lists the software of an application called `name` and of the operating system release with this record.
pub fn generate(name: &str, tree: &Tree, os_record: &Value) -> io::Result<Bom> {
    let distribution = Distribution::of(tree)?;
    let mut all: BTreeMap<String, Component> = BTreeMap::new();
    let found = [
        operating_system(os_record),
        dpkg::packages(tree, &distribution)?,
        apk::packages(tree, &distribution)?,
        rpm::packages(tree, &distribution)?,
        python::packages(tree)?,
        npm::packages(tree)?,
        rust::packages(tree)?,
    ];
    for component in found.into_iter().flatten().take(MAX_COMPONENTS) {
        all.entry(component.bom_ref.clone()).or_insert(component);
    }
    let application = Component::new("application", name, "", None);
    Ok(Bom {
        format: "CycloneDX",
        spec_version: "1.6",
        version: 1,
        metadata: Metadata { component: application },
        components: all.into_values().collect(),
    })
}

/// The fields of `/etc/os-release`.
#[derive(Debug, Default)]
struct Distribution {
    id: String,
    version: String,
}

impl Distribution {
    fn of(tree: &Tree) -> io::Result<Self> {
        let text = match read(tree, b"etc/os-release")? {
            Some(text) => text,
            None => read(tree, b"usr/lib/os-release")?.unwrap_or_default(),
        };
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            // The value is repeated in every package URL.
            let value = line.unwrap_or_default().trim_matches(['"', '\'']);
            if value.len() > MAX_TEXT { String::new() } else { value.to_owned() }
        };
        Ok(Self { id: value("ID"), version: value("VERSION_ID") })
    }

    /// The `distro` qualifier of package URLs.
    fn tag(&self) -> String {
        if self.version.is_empty() { self.id.clone() } else { format!("{}-{}", self.id, self.version) }
    }
}

impl Component {
    fn new(kind: &'static str, name: &str, version: &str, purl: Option<String>) -> Self {
        let bom_ref = purl.clone().unwrap_or_else(|| format!("{kind}/{name}"));
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { bom_ref, kind, name, version, purl, hashes: Vec::new(), properties: Vec::new() }
    }
}

/// The kernel and the crates of Cloister's programs, as listed in the release's record.
fn operating_system(record: &Value) -> Vec<Component> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(record.get("version").unwrap_or(&Value::Null));
    let mut components = vec![Component::new("operating-system", "cloister", &version, None)];
    if let Some(kernel) = record.get("kernel") {
        let field = |name: &str| kernel.get(name).map(text).unwrap_or_default();
        let mut component = Component::new("operating-system", "linux", &field("release"), None);
        component.hashes = vec![Hash { alg: "SHA-256", content: field("sha256") }];
        let source =
            kernel.get("source").map(|source| source.as_str().map_or(source.to_string(), str::to_owned));
        component.properties =
            source.map(|value| Property { name: "cloister:source", value }).into_iter().collect();
        components.push(component);
    }
    let crates = record.get("crates").and_then(Value::as_array).into_iter().flatten();
    components.extend(crates.filter_map(|entry| {
        let (name, version) = entry.as_str()?.split_once(' ')?;
        Some(Component::new("library", name, version, Some(purl::of("cargo", &[], name, version, &[]))))
    }));
    components
}

/// A text file of the tree, following links; `None` if it does not exist.
fn read(tree: &Tree, path: &[u8]) -> io::Result<Option<String>> {
    match tree.lookup(path).ok().flatten().map(|inode| &inode.kind) {
        Some(Kind::File(content)) => text(content).map(Some),
        _ => Ok(None),
    }
}

/// A file's text; empty if the file is too long for metadata.
fn text(content: &Content) -> io::Result<String> {
    if content.len() > MAX_FILE {
        return Ok(String::new());
    }
    let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or_default()];
    content.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Every regular file whose path has one of these endings, in order.
fn files<'a>(tree: &'a Tree, endings: &'a [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a Content)> + 'a {
    tree.entries.iter().filter_map(move |(path, id)| {
        let fits = endings.iter().any(|ending| path.ends_with(ending));
        match tree.inode(*id).filter(|_| fits).map(|inode| &inode.kind) {
            Some(Kind::File(content)) => Some((path.as_slice(), content)),
            _ => None,
        }
    })
}

/// The fields of one paragraph of `Name: value` lines. Continuation lines, which begin with a space, are ignored.
fn fields(paragraph: &str) -> BTreeMap<&str, &str> {
    let line = |line: &'_ str| -> Option<(usize, usize)> {
        let colon = line.find(':')?;
        (!line.starts_with([' ', '\t'])).then_some((colon, line.len()))
    };
    let mut fields = BTreeMap::new();
    for text in paragraph.lines() {
        if let Some((colon, end)) = line(text) {
            let (key, value) = (text.get(..colon), text.get(colon + 1..end));
            fields.entry(key.unwrap_or_default()).or_insert(value.unwrap_or_default().trim());
        }
    }
    fields
}

#[cfg(test)]
mod tests;
