//! The manifest as its author writes it: YAML in, a complete [`Manifest`] or a report of all problems out.
//!
//! Invariant: raw → [`Checked`] → [`Manifest`]; each step runs once, and only a step without problems has a result.
//!
//! | step | module |
//! |---|---|
//! | text → tree with source positions | [`tree`](mod@tree) |
//! | tree → typed fields | [`read`](mod@read), [`document`](mod@document), [`map`](mod@map), [`units`](mod@units), [`names`](mod@names), [`signal`](mod@signal), [`capabilities`](mod@capabilities), [`platforms`](mod@platforms) |
//! | constraints between fields | [`check`](mod@check), [`graph`](mod@graph), [`listeners`](mod@listeners) |
//! | with an image: users, programs, paths, defaults | [`resolve`](mod@resolve), [`command`](mod@command), [`translate`](mod@translate), [`accounts`](mod@accounts), [`program`](mod@program), [`image`](mod@image), [`view`](mod@view), [`volumes`](mod@volumes), [`defaults`](mod@defaults) |
//! | notes on valid but surprising manifests | [`notes`](mod@notes), [`healthcheck`](mod@healthcheck) |
//! | problems, human-readable and as JSON | [`problem`](mod@problem), [`render`](mod@render), [`lines`](mod@lines), [`secret`](mod@secret), [`hint`](mod@hint), [`foreign`](mod@foreign) |
//! | the schema that editors use | [`schema`](mod@schema) |

mod accounts;
mod capabilities;
mod check;
mod command;
mod defaults;
mod document;
mod foreign;
mod graph;
mod healthcheck;
mod hint;
mod image;
mod lines;
mod listeners;
mod map;
mod names;
mod notes;
mod platforms;
mod problem;
mod program;
mod quantity;
mod read;
mod render;
mod resolve;
mod schema;
mod secret;
mod signal;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod translate;
mod tree;
mod units;
mod view;
mod volumes;

pub use image::{Arch, Entry, EntryKind, Healthcheck, Image, ImageConfig, Rootfs};
pub use problem::{Kind, MAX_PROBLEMS, Problem, Report, Span};
pub use schema::schema;
pub use volumes::{Volume, volumes};

use document::Document;
use problem::Problems;
use read::Read as _;

use crate::model::{self, Manifest};
use crate::platform::Platform;

/// A manifest without problems, as far as can be checked without an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    file: String,
    source: String,
    plan: check::Plan,
}

impl Checked {
    /// The services' names in start order.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.plan.services.iter().map(|service| service.name.as_str())
    }

    /// The platforms that the image may run on, sorted.
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        platforms::allowed(&self.plan.document)
    }
}

/// A complete manifest, and notes for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest that is measured.
    pub manifest: Manifest,
    /// Valid settings that may still surprise: a line of text each.
    pub notes: Vec<String>,
}

/// Reads and checks a manifest. `file` is its name in reports.
///
/// # Errors
/// All its problems at once.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Checked, Box<Report>> {
    let mut problems = Problems::default();
    let (source, plan) = read(bytes, &mut problems);
    match (problems.into_report(file, &source), plan) {
        (None, Some(plan)) => Ok(Checked { file: file.to_owned(), source, plan }),
        (report, _) => Err(Box::new(report.unwrap_or_else(|| Report::empty(file)))),
    }
}

/// Resolves a checked manifest against an image.
///
/// # Errors
/// All conflicts between the image and the manifest, at once.
pub fn resolve(checked: &Checked, image: &Image<'_>) -> Result<Resolved, Box<Report>> {
    let mut problems = Problems::default();
    let resolved = finish(&checked.plan, image, &mut problems);
    match problems.into_report(&checked.file, &checked.source) {
        None => Ok(resolved),
        Some(report) => Err(Box::new(report)),
    }
}

/// [`parse`] and [`resolve()`] with the problems of both in one report.
///
/// # Errors
/// All problems at once.
pub fn build(file: &str, bytes: &[u8], image: &Image<'_>) -> Result<Resolved, Box<Report>> {
    let mut problems = Problems::default();
    let (source, plan) = read(bytes, &mut problems);
    let resolved = plan.map(|plan| finish(&plan, image, &mut problems));
    match (problems.into_report(file, &source), resolved) {
        (None, Some(resolved)) => Ok(resolved),
        (report, _) => Err(Box::new(report.unwrap_or_else(|| Report::empty(file)))),
    }
}

/// The source as text that a report may show, and the plan read from it.
fn read(bytes: &[u8], problems: &mut Problems) -> (String, Option<check::Plan>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let source = match std::str::from_utf8(bytes) {
        Ok(source) => source.to_owned(),
        Err(error) => {
            let at = error.valid_up_to();
            let span = Span { start: at, end: at.saturating_add(1) };
            problems
                .push(Problem::new(Kind::Syntax, span, "the manifest is not UTF-8").hint("save it as UTF-8"));
            return (secret::hide_unread(&String::from_utf8_lossy(bytes)), None);
        }
    };
    match tree::read(&source, problems) {
        Some(node) => (secret::hide(&source, &node), document(&node, problems)),
        None => (secret::hide_unread(&source), None),
    }
}

fn document(node: &tree::Node, problems: &mut Problems) -> Option<check::Plan> {
    if node.value == tree::Value::Null {
        let problem = Problem::new(Kind::MissingField, node.span, "the manifest is empty");
        problems
            .push(problem.hint("the minimal manifest is `version: 1`; everything else comes from the image"));
        return None;
    }
    let document = Document::read(node, problems)?;
    Some(check::check(document, problems))
}

/// Resolves, and checks the result against the size limit of the reader inside.
fn finish(plan: &check::Plan, image: &Image<'_>, problems: &mut Problems) -> Resolved {
    let manifest = resolve::resolve(plan, image, problems);
    let length = manifest.to_json().map_or(usize::MAX, |json| json.len());
    if length > model::MAX_BYTES {
        let what =
            format!("the resolved manifest is {length} bytes, more than the limit of {}", model::MAX_BYTES);
        problems
            .push(Problem::new(Kind::Limit, Span::default(), what).hint("put large files into the image"));
    }
    let notes = notes::notes(plan, image, &manifest);
    Resolved { manifest, notes }
}
