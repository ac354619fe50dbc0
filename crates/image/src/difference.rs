//! What is different between two artifacts, for people who must explain one.
//!
//! Its law: if two artifacts are not the same bytes, this says at least one thing; and of a sealed text it says no more
//! than its length and that it is another one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::artifact::{Artifact, ArtifactFault, BuildRecord, Contents, ContentsFault, Item, ItemKind, Part};
use crate::digest::Digest;

/// The field of a manifest's service whose texts are secrets.
const SEALED: &str = "sealed";

/// The longest value of a document that is shown, in characters.
const MAX_VALUE: usize = 200;

/// Everything that is different. Where all is empty, the artifacts are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The parts that are not the same bytes, by title.
    pub parts: Vec<PartChange>,
    /// Fields of the documents among them.
    pub fields: Vec<FieldChange>,
    /// Names in the application's root, in their order.
    pub files: Vec<FileChange>,
}

/// A part that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartChange {
    /// Which.
    pub part: String,
    /// The first one's digest; `None` if it has no such part.
    pub first: Option<Digest>,
    /// The second one's.
    pub second: Option<Digest>,
}

/// A field that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Which document.
    pub part: String,
    /// Where in it, with dots.
    pub field: String,
    /// What the first one has, as JSON; `None` if it has nothing.
    pub first: Option<String>,
    /// What the second one has.
    pub second: Option<String>,
}

/// A name that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path from the root, made printable.
    pub path: String,
    /// What is different.
    #[serde(flatten)]
    pub what: FileDifference,
}

/// What is different about a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum FileDifference {
    /// Only the first one has it.
    Removed,
    /// Only the second one has it.
    Added,
    /// Both have it, and these are not the same.
    Changed {
        /// `content`, `type`, `mode`, `owner`, `time`, `attributes`.
        aspects: Vec<&'static str>,
    },
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// Compares two artifacts.
pub fn compare(first: &Artifact, second: &Artifact) -> Result<Difference, ContentsFault> {
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
        let text = |artifact: &Artifact| Ok::<_, ArtifactFault>(Value::String(artifact.command_line()?));
        walk(&Place::of(Part::CommandLine), Some(&text(first)?), Some(&text(second)?), &mut fields);
    }
    let changed = changed.contains(Part::AppRamdisk.title());
    let files = if changed { files(&first.contents()?, &second.contents()?) } else { Vec::new() };
    Ok(Difference { parts, fields, files })
}

/// Compares two build records: where there is no difference, the second build has done the first one again.
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

fn document(artifact: &Artifact, part: Part) -> Result<Option<Value>, ArtifactFault> {
    if artifact.size(part) == 0 { Ok(None) } else { artifact.json(part).map(Some) }
}

/// A place in a document.
#[derive(Clone, Debug)]
struct Place {
    part: &'static str,
    field: String,
    /// Whether what lies here is secret.
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

    /// A value as it may be shown.
    fn shown(&self, value: &Value) -> String {
        without_sealed(value, self.sealed).to_string().chars().take(MAX_VALUE).collect()
    }
}

/// Every place where two documents are not the same, the deepest that can be named.
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
                // Two secrets of one length, or two values whose beginnings are the same.
                second.push_str(", changed");
            }
            out.push(FieldChange { part: at.part.to_owned(), field: at.field.clone(), first, second });
        }
    }
}

/// The value with nothing but the length of each sealed text.
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
    fn each_name_says_what_is_different() {
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
    fn a_sealed_text_is_never_shown_wherever_the_difference_is() {
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
