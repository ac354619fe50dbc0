//! The differences between two artifacts, in human-readable terms.
//!
//! Invariant: if two artifacts differ in any byte, at least one difference is reported; of a sealed text, only its
//! length and the fact that it changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::artifact::{Artifact, ArtifactError, BuildRecord, Contents, ContentsError, Item, ItemKind, Part};
use crate::digest::Digest;

/// The field of a manifest's service whose texts are secrets.
const SEALED: &str = "sealed";

/// Maximum length of a displayed value of a document, in characters.
const MAX_VALUE: usize = 200;

/// All differences. If all lists are empty, the artifacts are identical.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The parts whose bytes differ, by title.
    pub parts: Vec<PartChange>,
    /// The differing fields of the documents among those parts.
    pub fields: Vec<FieldChange>,
    /// The differing files of the application's root, sorted by path.
    pub files: Vec<FileChange>,
}

/// A part that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartChange {
    /// The part's title.
    pub part: String,
    /// Its digest in the first artifact; `None` if that has no such part.
    pub first: Option<Digest>,
    /// Its digest in the second artifact.
    pub second: Option<Digest>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The title of the document.
    pub part: String,
    /// The path of the field in it, separated by dots.
    pub field: String,
    /// The value in the first artifact, as JSON; `None` if it has no such field.
    pub first: Option<String>,
    /// The value in the second artifact.
    pub second: Option<String>,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path from the root, made printable.
    pub path: String,
    /// What differs.
    #[serde(flatten)]
    pub what: FileDifference,
}

/// What differs about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum FileDifference {
    /// Only the first artifact has it.
    Removed,
    /// Only the second artifact has it.
    Added,
    /// Both have it, with different properties.
    Changed {
        /// `content`, `type`, `mode`, `owner`, `time`, `attributes`.
        aspects: Vec<&'static str>,
    },
}

impl Difference {
    /// Whether the artifacts are identical.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// Compares two artifacts.
pub fn compare(first: &Artifact, second: &Artifact) -> Result<Difference, ContentsError> {
    let parts = parts(first, second);
    let mut fields = Vec::new();
    let changed: BTreeSet<&str> = parts.iter().map(|change| change.part.as_str()).collect();
    for part in [Part::Manifest, Part::OsRelease, Part::BuildRecord, Part::Measurements] {
        if changed.contains(part.title()) {
            let (a, b) = (document(first, part)?, document(second, part)?);
            walk(&Place::of(part), a.as_ref(), b.as_ref(), &mut fields);
        }
    }
    if changed.contains(Part::CommandLine.title()) {
        let text = |artifact: &Artifact| Ok::<_, ArtifactError>(Value::String(artifact.command_line()?));
        walk(&Place::of(Part::CommandLine), Some(&text(first)?), Some(&text(second)?), &mut fields);
    }
    let changed = changed.contains(Part::AppRamdisk.title());
    let files = if changed { files(&first.contents()?, &second.contents()?) } else { Vec::new() };
    Ok(Difference { parts, fields, files })
}

/// Compares two build records: if there is no difference, the second build has reproduced the first one.
pub fn records(first: &BuildRecord, second: &BuildRecord) -> Result<Vec<FieldChange>, serde_json::Error> {
    let (first, second) = (serde_json::to_value(first)?, serde_json::to_value(second)?);
    let mut fields = Vec::new();
    walk(&Place::of(Part::BuildRecord), Some(&first), Some(&second), &mut fields);
    Ok(fields)
}

fn parts(first: &Artifact, second: &Artifact) -> Vec<PartChange> {
    let digests = |artifact: &Artifact| -> BTreeMap<Part, Digest> {
        artifact.parts().map(|(part, digest, _)| (part, digest)).collect()
    };
    let (a, b) = (digests(first), digests(second));
    let all: BTreeSet<Part> = a.keys().chain(b.keys()).copied().collect();
    let change = |part: Part| {
        let (first, second) = (a.get(&part).copied(), b.get(&part).copied());
        (first != second).then(|| PartChange { part: part.title().to_owned(), first, second })
    };
    all.into_iter().filter_map(change).collect()
}

fn document(artifact: &Artifact, part: Part) -> Result<Option<Value>, ArtifactError> {
    if artifact.size(part) == 0 { Ok(None) } else { artifact.json(part).map(Some) }
}

/// A position in a document.
#[derive(Clone, Debug)]
struct Place {
    part: &'static str,
    field: String,
    /// Whether the value here is secret.
    sealed: bool,
}

impl Place {
    fn of(part: Part) -> Self {
        Self { part: part.title(), field: String::new(), sealed: false }
    }

    fn below(&self, key: &str) -> Self {
        let field = if self.field.is_empty() { key.to_owned() } else { format!("{}.{key}", self.field) };
        Self { field, sealed: self.sealed || key == SEALED, ..*self }
    }

    /// A value with its secrets removed, for display.
    fn shown(&self, value: &Value) -> String {
        without_sealed(value, self.sealed).to_string().chars().take(MAX_VALUE).collect()
    }
}

/// Collects the deepest positions at which two documents differ.
fn walk(at: &Place, first: Option<&Value>, second: Option<&Value>, out: &mut Vec<FieldChange>) {
    match (first, second) {
        (a, b) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                walk(&at.below(key), a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                walk(&at.below(&index.to_string()), a.get(index), b.get(index), out);
            }
        }
        (a, b) => {
            let first = a.map(|value| at.shown(value));
            let mut second = b.map(|value| at.shown(value));
            if let Some(second) = second.as_mut().filter(|second| Some(&**second) == first.as_ref()) {
                // Two secrets of the same length, or two long values with the same prefix.
                second.push_str(", changed");
            }
            out.push(FieldChange { part: at.part.to_owned(), field: at.field.clone(), first, second });
        }
    }
}

/// The value with each sealed text replaced by its length.
fn without_sealed(value: &Value, sealed: bool) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                (key.clone(), without_sealed(value, sealed || key == SEALED))
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(values) => values.iter().map(|value| without_sealed(value, sealed)).collect(),
        Value::String(text) if sealed => Value::String(format!("(sealed, {} bytes)", text.len())),
        other => other.clone(),
    }
}

fn files(first: &Contents, second: &Contents) -> Vec<FileChange> {
    let all: BTreeSet<&Vec<u8>> = first.keys().chain(second.keys()).collect();
    let change = |path: &Vec<u8>| {
        let what = match (first.get(path), second.get(path)) {
            (Some(_), None) => FileDifference::Removed,
            (None, Some(_)) => FileDifference::Added,
            (Some(a), Some(b)) => {
                let aspects = aspects(a, b);
                return (!aspects.is_empty()).then(|| file_change(path, FileDifference::Changed { aspects }));
            }
            (None, None) => return None,
        };
        Some(file_change(path, what))
    };
    all.into_iter().filter_map(change).collect()
}

fn file_change(path: &[u8], what: FileDifference) -> FileChange {
    FileChange { path: format!("/{}", crate::shown(path)), what }
}

fn aspects(first: &Item, second: &Item) -> Vec<&'static str> {
    let same_type = match (&first.kind, &second.kind) {
        (ItemKind::File { .. }, ItemKind::File { .. }) | (ItemKind::Symlink(_), ItemKind::Symlink(_)) => true,
        (a, b) => a == b,
    };
    let all = [
        ("type", same_type),
        ("content", !same_type || first.kind == second.kind),
        ("mode", first.mode == second.mode),
        ("owner", (first.uid, first.gid) == (second.uid, second.gid)),
        ("time", first.mtime == second.mtime),
        ("attributes", first.xattrs == second.xattrs),
    ];
    all.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree::Xattrs;

    fn item(mode: u32, content: &[u8]) -> Item {
        let kind = ItemKind::File { size: crate::wide(content.len()), digest: Digest::of(content) };
        Item { mode, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind }
    }

    #[test]
    fn each_file_is_listed_with_what_differs() {
        let first = Contents::from([
            (b"gone".to_vec(), item(0o644, b"")),
            (b"mode".to_vec(), item(0o644, b"")),
            (b"same".to_vec(), item(0o644, b"")),
            (b"type".to_vec(), item(0o644, b"")),
        ]);
        let second = Contents::from([
            (b"mode".to_vec(), Item { mtime: 5, ..item(0o755, b"x") }),
            (b"new".to_vec(), item(0o644, b"")),
            (b"same".to_vec(), item(0o644, b"")),
            (b"type".to_vec(), Item { kind: ItemKind::Fifo, ..item(0o644, b"") }),
        ]);
        let seen: Vec<_> =
            files(&first, &second).into_iter().map(|change| (change.path, change.what)).collect();
        let changed = |aspects: &[&'static str]| FileDifference::Changed { aspects: aspects.to_vec() };
        let expected = [
            ("/gone".to_owned(), FileDifference::Removed),
            ("/mode".to_owned(), changed(&["content", "mode", "time"])),
            ("/new".to_owned(), FileDifference::Added),
            ("/type".to_owned(), changed(&["type"])),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn documents_are_compared_field_by_field() {
        let first = json!({"a": 1, "b": {"c": [1, 2]}, "gone": null});
        let second = json!({"a": 1, "b": {"c": [1, 3, 4]}});
        let mut out = Vec::new();
        walk(&Place::of(Part::Manifest), Some(&first), Some(&second), &mut out);
        let seen: Vec<_> =
            out.iter().map(|change| (change.field.as_str(), change.second.as_deref())).collect();
        assert_eq!(seen, [("b.c.1", Some("3")), ("b.c.2", Some("4")), ("gone", None)]);
    }

    #[test]
    fn a_sealed_text_is_never_displayed_wherever_the_difference_is() {
        let service = |text: &str| json!({"name": "web", "sealed": {"KEY": text}});
        let one = |first: &Value, second: &Value| {
            let mut out = Vec::new();
            walk(&Place::of(Part::Manifest), Some(first), Some(second), &mut out);
            out
        };
        let manifest = |services: &[Value]| json!({"services": services});
        let changed = one(&manifest(&[service("hunter2")]), &manifest(&[service("hunter3")]));
        let [change] = changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!(change.field, "services.0.sealed.KEY");
        assert_eq!(change.first.as_deref(), Some("\"(sealed, 7 bytes)\""));
        assert_eq!(change.second.as_deref(), Some("\"(sealed, 7 bytes)\", changed"));
        let nothing = json!({"services": [{"name": "web", "sealed": {}}]});
        for (first, second) in [
            (manifest(&[service("hunter2")]), manifest(&[])),
            (manifest(&[]), manifest(&[service("hunter2")])),
            (manifest(&[service("hunter2")]), nothing),
            (manifest(&[service("hunter2")]), json!({"services": "none"})),
            (manifest(&[service("hunter2")]), Value::Null),
        ] {
            let text = format!("{:?}", one(&first, &second));
            assert!(text.contains("sealed, 7 bytes") && !text.contains("hunter"), "{text}");
        }
    }
}
