//! The problems of a manifest, human-readable and as JSON.
//!
//! Invariant: a problem states what is wrong, shows where, and where possible suggests what to do; all problems of a manifest
//! are reported at once, in the order of the file. [`super::render`] formats them.

use std::fmt;

use serde::Serialize;

use super::lines::Lines;

/// The maximum number of problems that are kept: enough for one round of corrections, and a hostile file cannot use more
/// memory.
pub const MAX_PROBLEMS: usize = 100;

/// A range of bytes in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// Whether `other` is within.
    #[must_use]
    pub fn covers(&self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// The kind of a problem: programs distinguish problems by this keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// It is not YAML, or uses features that are not supported (tags, several documents).
    Syntax,
    /// A field that does not exist.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A value of another shape, such as a list for a number.
    WrongType,
    /// A value of the right shape that is invalid.
    BadValue,
    /// Something is defined twice.
    Duplicate,
    /// A name that nothing in the manifest has.
    UnknownName,
    /// Services that wait for each other.
    Cycle,
    /// Two settings that exclude each other.
    Conflict,
    /// Something that the image lacks, or that cannot work in the image.
    Image,
    /// A limit is exceeded.
    Limit,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// Its position.
    pub at: Span,
    /// What is wrong, in one line.
    pub what: String,
    /// The text beside the carets: the reason, or what was expected. May be empty.
    pub label: String,
    /// A related position, such as that of the first of two duplicates.
    pub related: Option<(Span, String)>,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with the required fields only.
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

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    dropped: usize,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        if self.found.len() >= MAX_PROBLEMS {
            self.dropped = self.dropped.saturating_add(1);
        } else if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether a problem within `span` was already found: reporting its consequences would only be noise.
    pub(super) fn any_within(&self, span: Span) -> bool {
        self.found.iter().any(|problem| span.covers(problem.at))
    }

    /// The report, or `None` if there are no problems.
    pub(super) fn into_report(mut self, file: &str, source: &str) -> Option<Report> {
        if self.found.is_empty() {
            return None;
        }
        self.found.sort_by_key(|problem| problem.at);
        Some(Report {
            file: file.to_owned(),
            source: source.to_owned(),
            problems: self.found,
            dropped: self.dropped,
        })
    }
}

/// All problems of a manifest.
///
/// [`fmt::Display`] is human-readable, with an excerpt of the source for each problem; [`Self::to_json`] is for programs.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    pub(super) file: String,
    pub(super) source: String,
    problems: Vec<Problem>,
    dropped: usize,
}

/// One problem as JSON.
#[derive(Debug, Serialize)]
struct JsonProblem<'a> {
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
    /// An empty report, for a path that is never taken without a problem.
    pub(super) fn empty(file: &str) -> Self {
        Self { file: file.to_owned(), source: String::new(), problems: Vec::new(), dropped: 0 }
    }

    /// The file's name as given by the caller.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems in the order of the file, at most [`MAX_PROBLEMS`].
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The number of problems left out.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// `{"file", "problems": [{"kind", "message", "label", "line", "column", "end_line", "end_column", "text", "related",
    /// "hint"}], "dropped"}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let lines = Lines::new(&self.source);
        let problems: Vec<_> = self.problems.iter().map(|problem| json_problem(&lines, problem)).collect();
        serde_json::json!({ "file": self.file, "problems": problems, "dropped": self.dropped })
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("file", &self.file)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Report {}

fn json_problem<'a>(lines: &Lines<'a>, problem: &'a Problem) -> JsonProblem<'a> {
    let related = problem.related.as_ref();
    JsonProblem {
        kind: problem.kind,
        message: &problem.what,
        label: &problem.label,
        at: json_place(lines, problem.at),
        related: related.map(|(at, label)| JsonRelated { at: json_place(lines, *at), label }),
        hint: problem.hint.as_deref(),
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
