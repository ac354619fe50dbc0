//! The source of a manifest as a report may show it.
//!
//! Its law: what stands under `sealed` is secret. A report goes to terminals, build logs and tickets, so it shows these texts
//! as stars, each byte one, and everything else stays where it was. In doubt a byte is secret: names are shown where the source
//! was understood, and what is between them only if it is nothing but the signs of a map.

use super::fault::Span;
use super::tree::{Node, Value};

/// The field whose texts are secrets.
const SEALED: &str = "sealed";

/// What a map is written with, besides its names and values.
const SIGNS: [char; 6] = ['{', '}', ':', ',', '"', '\''];

/// `source`, of which `root` was read, without its secrets.
pub(super) fn hide(source: &str, root: &Node) -> String {
    let mut secret = Vec::new();
    find(source, root, &mut secret);
    let is_secret = |at: usize| secret.iter().any(|span| span.start <= at && at < span.end);
    starred(source, is_secret)
}

/// `source`, which could not be read, without what may be its secrets: all behind the word `sealed`, as far as lines are
/// indented deeper than the line it stands in; where a brace or bracket stands before it, which say more than lines, all behind it.
pub(super) fn hide_unread(source: &str) -> String {
    let mut secret = Vec::new();
    // How deep the line with the word is indented; none where nothing ends what is behind it.
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

/// `source` with stars for all that is secret and no space.
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

/// Finds what is under `sealed`.
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

/// What is between two entries of a map: one that was left out, since its name is given twice or is none, may be `sealed` or have
/// it inside.
fn left_out(source: &str, start: usize, end: usize, secret: &mut Vec<Span>) {
    if source.get(start..end).unwrap_or(SEALED).contains(SEALED) {
        secret.push(Span { start, end });
    }
}

/// All of a value under `sealed`, whatever its shape is, but for the names in it. A name that is given twice is not among its
/// entries: it is a part of what is between them, and hidden with its text.
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

/// What is between two parts of a map, unless it is signs alone.
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
            // What cannot be read at all.
            "sealed: {KEY: hunter2",
            "sealed: {KEY: \"hunter2}",
            "sealed:\n      KEY: hunter2: hunter3",
            "sealed:\n\n      # hunter2\n      KEY: 'hunter3\n      OTHER: hunter4",
            "\"sealed\" : {KEY: hunter2]",
            "env: {A: b, sealed: {KEY: hunter2\n  hunter3\nhunter4",
            "sealed: {KEY: &a hunter2, OTHER: *b}",
            "env: {\n    sealed: {\n    KEY: 'hunter2\n  }}",
            // What is left out of the tree.
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
    fn no_report_on_bytes_that_are_no_text_shows_a_sealed_one() {
        let report = parse("x", b"version: 1\nservices: {web: {sealed: {KEY: hunter2\xff}}}\n").unwrap_err();
        assert!(!report.to_string().contains("hunter"), "{report}");
    }

    #[test]
    fn names_are_shown_as_they_are_written() {
        for sealed in ["sealed: {KEY: hunter2, OTHER: [x]}", "sealed:\n      KEY: hunter2\n      OTHER: [x]"]
        {
            let (text, _) = report(&format!("version: 1\nservices:\n  web:\n    {sealed}\n"));
            assert!(text.contains("OTHER: ***") && !text.contains("*KEY"), "{text}");
        }
        let (text, _) = report("version: 1\nservices: {web: {env: {KEY: a}, sealed: {KEY: hunter2}}}\n");
        assert!(text.contains("sealed: {KEY: *******}}}"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_shown_but_for_what_may_be_sealed() {
        let (text, _) =
            report("version: 1\nservices:\n  web:\n    sealed:\n      KEY: a\n    env: {KEY: 'b\n");
        assert!(text.contains("env: {KEY: 'b"), "{text}");
    }

    #[test]
    fn everything_else_stays_where_it_was() {
        let (text, _) =
            report("version: 1\nservices:\n  web:\n    sealed: {KEY: hünter2} # a key\n    colour: blue\n");
        assert!(text.contains("cloister.yaml:5:5") && text.contains("colour: blue"), "{text}");
    }
}
