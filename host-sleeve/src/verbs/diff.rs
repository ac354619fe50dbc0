//! `diff`: explains how two enclave images differ.

use cloister_image::artifact::{Artifact, ArtifactError, ContentsError};
use cloister_image::difference::{Difference, FileDifference, compare};

use crate::cli::Diff;
use crate::error::{Error, Result};
use crate::output;

use super::DONE;

/// The exit code for different images, as in `diff(1)`.
const DIFFERENT: u8 = 1;

/// Compares two enclave images.
pub(crate) fn diff(args: &Diff, json: bool) -> Result<u8> {
    let open = |path: &std::path::Path| {
        Artifact::open(path).map_err(|error: ArtifactError| {
            Error::operator(error.to_string())
                .because(error)
                .hint("`host-sleeve build` creates enclave images")
        })
    };
    let (first, second) = (open(&args.first)?, open(&args.second)?);
    let difference = compare(&first, &second).map_err(|error: ContentsError| {
        Error::operator("the images cannot be compared").because(error).hint("build the damaged one again")
    })?;
    if json {
        output::json(&difference)?;
    } else if !difference.is_empty() {
        output::data(&text(&difference))?;
    }
    Ok(if difference.is_empty() { DONE } else { DIFFERENT })
}

/// One line per changed part, field and file.
fn text(difference: &Difference) -> String {
    let mut lines: Vec<String> = Vec::new();
    for change in &difference.parts {
        let what = match (&change.first, &change.second) {
            (Some(_), None) => "removed",
            (None, Some(_)) => "added",
            _ => "changed",
        };
        lines.push(format!("part {} {what}", change.part));
    }
    for change in &difference.fields {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let (first, second) = (shown(&change.first), shown(&change.second));
        lines.push(format!("{} {}: {first} → {second}", change.part, change.field));
    }
    for change in &difference.files {
        let what = match &change.what {
            FileDifference::Removed => "removed".to_owned(),
            FileDifference::Added => "added".to_owned(),
            FileDifference::Changed { aspects } => aspects.join(", "),
        };
        lines.push(format!("file {}: {what}", change.path));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use cloister_image::difference::{FieldChange, FileChange, PartChange};

    use super::*;

    #[test]
    fn each_difference_is_one_line() {
        let file = |path: &str, what| FileChange { path: path.to_owned(), what };
        let difference = Difference {
            parts: vec![PartChange { part: "kernel".to_owned(), first: None, second: None }],
            fields: vec![FieldChange {
                part: "manifest.json".to_owned(),
                field: "debug".to_owned(),
                first: Some("false".to_owned()),
                second: None,
            }],
            files: vec![
                file("/a", FileDifference::Added),
                file("/b", FileDifference::Changed { aspects: vec!["content", "time"] }),
            ],
        };
        let expected = "part kernel changed\nmanifest.json debug: false → nothing\nfile /a: added\nfile /b: content, time";
        assert_eq!(text(&difference), expected);
    }
}
