//! What is wrong with a manifest, for people and for programs.
//!
//! Its law: a fault says what, shows where, and where possible says what to do; all faults of a manifest are told at once,
//! in the order of the file. How they look is in [`super::render`].

use std::fmt;

use serde::Serialize;

use super::lines::Lines;

/// The most faults that are kept: past it a person mends what is shown, and a hostile file cannot make us hold more.
pub const MAX_FAULTS: usize = 100;

/// A range of bytes in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// Whether `other` lies within.
    #[must_use]
    pub fn covers(&self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// What kind of fault it is: programs tell faults apart by this word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// It is not YAML, or YAML that is not read here (tags, several documents).
    Syntax,
    /// A field that does not exist.
    UnknownField,
    /// A field that must be there.
    MissingField,
    /// A value of another shape, such as a list for a number.
    WrongType,
    /// A value of the right shape that cannot be.
    BadValue,
    /// Something said twice.
    Duplicate,
    /// A name that nothing in the manifest has.
    UnknownName,
    /// Services that wait for each other.
    Cycle,
    /// Two things that cannot both be.
    Conflict,
    /// Something that the image lacks or has in a way that cannot work.
    Image,
    /// More than is read.
    Limit,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind it is.
    pub kind: Kind,
    /// Where it is.
    pub at: Span,
    /// What is wrong, in one line.
    pub what: String,
    /// What stands beside the carets: the reason, or what was wanted. May be empty.
    pub label: String,
    /// Another place that belongs to it, such as the first of two.
    pub related: Option<(Span, String)>,
    /// What to do.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault with only what it must have.
    pub(super) fn new(kind: Kind, at: Span, what: impl Into<String>) -> Self {
        Self { kind, at, what: what.into(), label: String::new(), related: None, hint: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub(super) fn related(mut self, at: Span, label: impl Into<String>) -> Self {
        self.related = Some((at, label.into()));
        self
    }
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    dropped: usize,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if self.found.len() >= MAX_FAULTS {
            self.dropped = self.dropped.saturating_add(1);
        } else if !self.found.contains(&fault) {
            self.found.push(fault);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether something within `span` has a fault already: what follows from it would only be noise.
    pub(super) fn touch(&self, span: Span) -> bool {
        self.found.iter().any(|fault| span.covers(fault.at))
    }

    /// The report, or nothing if there is nothing to report.
    pub(super) fn into_report(mut self, file: &str, source: &str) -> Option<Report> {
        if self.found.is_empty() {
            return None;
        }
        self.found.sort_by_key(|fault| fault.at);
        Some(Report {
            file: file.to_owned(),
            source: source.to_owned(),
            faults: self.found,
            dropped: self.dropped,
        })
    }
}

/// Everything that is wrong with a manifest.
///
/// [`fmt::Display`] shows it to people, many lines with the source beside each fault; [`Self::to_json`] is for programs.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    pub(super) file: String,
    pub(super) source: String,
    faults: Vec<Fault>,
    dropped: usize,
}

/// One fault as programs read it.
#[derive(Debug, Serialize)]
struct JsonFault<'a> {
    kind: Kind,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
    #[serde(flatten)]
    at: JsonPlace<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<JsonRelated<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Lines and columns count from 1, columns in characters; the end is the last character's.
#[derive(Debug, Serialize)]
struct JsonPlace<'a> {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonRelated<'a> {
    #[serde(flatten)]
    at: JsonPlace<'a>,
    label: &'a str,
}

impl Report {
    /// A report of nothing, for a path that no fault leads to.
    pub(super) fn empty(file: &str) -> Self {
        Self { file: file.to_owned(), source: String::new(), faults: Vec::new(), dropped: 0 }
    }

    /// The file's name as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The faults in the order of the file, [`MAX_FAULTS`] at most.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How many more there were.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// `{"file", "faults": [{"kind", "message", "label", "line", "column", "end_line", "end_column", "text", "related",
    /// "hint"}], "dropped"}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let lines = Lines::new(&self.source);
        let faults: Vec<_> = self.faults.iter().map(|fault| json_fault(&lines, fault)).collect();
        serde_json::json!({ "file": self.file, "faults": faults, "dropped": self.dropped })
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("file", &self.file)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Report {}

fn json_fault<'a>(lines: &Lines<'a>, fault: &'a Fault) -> JsonFault<'a> {
    let related = fault.related.as_ref();
    JsonFault {
        kind: fault.kind,
        message: &fault.what,
        label: &fault.label,
        at: json_place(lines, fault.at),
        related: related.map(|(at, label)| JsonRelated { at: json_place(lines, *at), label }),
        hint: fault.hint.as_deref(),
    }
}

fn json_place<'a>(lines: &Lines<'a>, span: Span) -> JsonPlace<'a> {
    let start = lines.place(span.start);
    let end = lines.place(span.end.saturating_sub(1).max(span.start));
    JsonPlace {
        line: start.line,
        column: start.column,
        end_line: end.line,
        end_column: end.column,
        text: lines.text(span),
    }
}
