//! The source of a manifest with its secrets masked, for reports.
//!
//! Invariant: everything under `sealed` is secret. Reports go to terminals, build logs and tickets, so each byte of these texts
//! is shown as a star, and everything else keeps its position. In doubt a byte is secret: names are shown where the source
//! was understood, and the text between them only if it consists of the punctuation of a map.

use super::problem::Span;
use super::tree::{Node, Value};

/// The field whose texts are secrets.
const SEALED: &str = "sealed";

/// The punctuation of a map.
const SIGNS: [char; 6] = ['{', '}', ':', ',', '"', '\''];

/// `source`, from which `root` was read, with its secrets masked.
pub(super) fn hide(source: &str, root: &Node) -> String {
    let mut secret = Vec::new();
    find(source, root, &mut secret);
    let is_secret = |at: usize| secret.iter().any(|span| span.start <= at && at < span.end);
    starred(source, is_secret)
}

/// `source`, which could not be read, with possible secrets masked: everything after the word `sealed`, as long as lines are
/// indented deeper than its own; if a brace or bracket precedes it, so that indentation means nothing, everything after it.
pub(super) fn hide_unread(source: &str) -> String {
    let mut secret = Vec::new();
    // The indentation of the line with the word; none if no later line ends the secret part.
    let mut within: Option<Option<usize>> = None;
    let mut start = 0_usize;
    for line in source.split_inclusive('\n') {
        let indent = line.len().saturating_sub(line.trim_start().len());
        if within.flatten().is_some_and(|depth| indent <= depth && !line.trim().is_empty()) {
            within = None;
        }
        let mut from = within.map(|_| 0);
        if within.is_none()
            && let Some(at) = line.find(SEALED)
        {
            let before = source.get(..start.saturating_add(at)).unwrap_or_default();
            within = Some((!before.contains(['{', '['])).then_some(indent));
            from = Some(at.saturating_add(SEALED.len()));
        }
        if let Some(from) = from {
            secret.push(start + from..start + line.len());
        }
        start += line.len();
    }
    starred(source, |at| secret.iter().any(|range| range.contains(&at)))
}

/// `source` with stars for all secret characters except white space.
fn starred(source: &str, is_secret: impl Fn(usize) -> bool) -> String {
    let mut shown = String::with_capacity(source.len());
    for (at, character) in source.char_indices() {
        if is_secret(at) && !character.is_whitespace() {
            shown.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Finds everything under `sealed`.
fn find(source: &str, node: &Node, secret: &mut Vec<Span>) {
    match &node.value {
        Value::Map(entries) => {
            let mut at = node.span.start;
            for entry in entries {
                left_out(source, at, entry.key_span.start, secret);
                if entry.key == SEALED {
                    take(source, &entry.value, secret);
                } else {
                    find(source, &entry.value, secret);
                }
                at = entry.value.span.end;
            }
            left_out(source, at, node.span.end, secret);
        }
        Value::List(items) => items.iter().for_each(|item| find(source, item, secret)),
        Value::Null | Value::Scalar(_) => {}
    }
}

/// The text between two entries of a map: an entry that was dropped, because its name is a duplicate or invalid, may be
/// `sealed` or contain it.
fn left_out(source: &str, start: usize, end: usize, secret: &mut Vec<Span>) {
    if source.get(start..end).unwrap_or(SEALED).contains(SEALED) {
        secret.push(Span { start, end });
    }
}

/// A whole value under `sealed`, of any shape, except for the names in it. A duplicate name is not among the entries: it is
/// part of the text between them, and masked with its value.
fn take(source: &str, sealed: &Node, secret: &mut Vec<Span>) {
    let Value::Map(entries) = &sealed.value else {
        secret.push(sealed.span);
        return;
    };
    let mut at = sealed.span.start;
    for entry in entries {
        between(source, at, entry.key_span.start, secret);
        between(source, entry.key_span.end, entry.value.span.start, secret);
        secret.push(entry.value.span);
        at = entry.value.span.end;
    }
    between(source, at, sealed.span.end, secret);
}

/// The text between two parts of a map, unless it is only punctuation.
fn between(source: &str, start: usize, end: usize, secret: &mut Vec<Span>) {
    let text = source.get(start..end).unwrap_or("?");
    if !text.chars().all(|c| c.is_whitespace() || SIGNS.contains(&c)) {
        secret.push(Span { start, end });
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn report(yaml: &str) -> (String, String) {
        let report = parse("cloister.yaml", yaml.as_bytes()).unwrap_err();
        (report.to_string(), report.to_json().to_string())
    }

    #[test]
    fn no_report_shows_a_sealed_text() {
        for sealed in [
            "sealed: {KEY: [hunter2]}",
            "sealed: {KEY: {a: hunter2}, OTHER: hunter2}",
            "sealed: hunter2",
            "sealed: [hunter2]",
            "sealed: {KEY: hunter2, KEY: hunter3}",
            "sealed: {\"no=name\": hunter2}",
            "env: {KEY: 1}\n    sealed: {KEY: hunter2}",
            "sealed:\n      KEY:\n        - hunter2",
            "sealed: {KEY: a, KEY: hunter3, OTHER: b}",
            "sealed:\n      KEY: hunter2 # hunter3\n      KEY: hunter4",
            "sealed:\n      KEY: |\n        hunter2\n        hunter3\n      KEY: x",
            "sealed: {? KEY : hunter2, 7: [x]}",
            // Sources that cannot be parsed.
            "sealed: {KEY: hunter2",
            "sealed: {KEY: \"hunter2}",
            "sealed:\n      KEY: hunter2: hunter3",
            "sealed:\n\n      # hunter2\n      KEY: 'hunter3\n      OTHER: hunter4",
            "\"sealed\" : {KEY: hunter2]",
            "env: {A: b, sealed: {KEY: hunter2\n  hunter3\nhunter4",
            "sealed: {KEY: &a hunter2, OTHER: *b}",
            "env: {\n    sealed: {\n    KEY: 'hunter2\n  }}",
            // Entries that are dropped from the tree.
            "sealed: {KEY: a}\n    sealed: {KEY: hunter2}",
            "sealed: {KEY: a}\n    sealed: hunter2\n    user: 1",
            "<<: {sealed: {KEY: hunter2}}",
            "? [{sealed: hunter2}]\n    : {sealed: hunter3}",
            "user: 1\n  web: {sealed: {KEY: hunter2}}",
        ] {
            let (text, json) = report(&format!("version: 1\nservices:\n  web:\n    {sealed}\n"));
            assert!(!text.contains("hunter"), "{text}");
            assert!(!json.contains("hunter"), "{json}");
        }
    }

    #[test]
    fn a_report_on_invalid_utf8_shows_no_sealed_text() {
        let report = parse("x", b"version: 1\nservices: {web: {sealed: {KEY: hunter2\xff}}}\n").unwrap_err();
        assert!(!report.to_string().contains("hunter"), "{report}");
    }

    #[test]
    fn names_of_sealed_texts_are_shown() {
        for sealed in ["sealed: {KEY: hunter2, OTHER: [x]}", "sealed:\n      KEY: hunter2\n      OTHER: [x]"]
        {
            let (text, _) = report(&format!("version: 1\nservices:\n  web:\n    {sealed}\n"));
            assert!(text.contains("OTHER: ***") && !text.contains("*KEY"), "{text}");
        }
        let (text, _) = report("version: 1\nservices: {web: {env: {KEY: a}, sealed: {KEY: hunter2}}}\n");
        assert!(text.contains("sealed: {KEY: *******}}}"), "{text}");
    }

    #[test]
    fn an_unreadable_source_is_shown_except_for_possible_secrets() {
        let (text, _) =
            report("version: 1\nservices:\n  web:\n    sealed:\n      KEY: a\n    env: {KEY: 'b\n");
        assert!(text.contains("env: {KEY: 'b"), "{text}");
    }

    #[test]
    fn masking_does_not_move_other_text() {
        let (text, _) =
            report("version: 1\nservices:\n  web:\n    sealed: {KEY: hünter2} # a key\n    colour: blue\n");
        assert!(text.contains("cloister.yaml:5:5") && text.contains("colour: blue"), "{text}");
    }
}
