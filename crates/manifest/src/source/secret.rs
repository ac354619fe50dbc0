//! The source of a manifest as a report may show it.
//!
//! Its law: what stands under `sealed` is secret. A report goes to terminals, build logs and tickets, so it shows these texts
//! as stars, each byte one, and everything else stays where it was.

use super::fault::Span;
use super::tree::{Node, Value};

/// The field whose texts are secrets.
const SEALED: &str = "sealed";

/// `source`, of which `root` was read, without its secrets.
pub(super) fn hide(source: &str, root: &Node) -> String {
    let mut places = Places::default();
    places.find(root);
    let within = |spans: &[Span], at: usize| spans.iter().any(|span| span.start <= at && at < span.end);
    let mut shown = String::with_capacity(source.len());
    for (at, character) in source.char_indices() {
        if within(&places.secret, at) && !within(&places.names, at) && !character.is_whitespace() {
            shown.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// What is secret, and the names in it, which are not.
#[derive(Debug, Default)]
struct Places {
    secret: Vec<Span>,
    names: Vec<Span>,
}

impl Places {
    fn find(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if entry.key == SEALED {
                        self.take(&entry.value);
                    } else {
                        self.find(&entry.value);
                    }
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.find(item)),
            Value::Null | Value::Scalar(_) => {}
        }
    }

    /// All of a value under `sealed`, whatever its shape is, but for the names in it. A name that is given twice is not
    /// among its entries, and the second text is hidden with it.
    fn take(&mut self, sealed: &Node) {
        self.secret.push(sealed.span);
        if let Value::Map(entries) = &sealed.value {
            self.names.extend(entries.iter().map(|entry| entry.key_span));
        }
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
            "sealed: {\"no name\": hunter2}",
            "env: {KEY: 1}\n    sealed: {KEY: hunter2}",
            "sealed:\n      KEY:\n        - hunter2",
        ] {
            let (text, json) = report(&format!("version: 1\nservices:\n  web:\n    {sealed}\n"));
            assert!(!text.contains("hunter"), "{text}");
            assert!(!json.contains("hunter"), "{json}");
        }
    }

    #[test]
    fn everything_else_stays_where_it_was() {
        let (text, _) =
            report("version: 1\nservices:\n  web:\n    sealed: {KEY: hünter2} # a key\n    colour: blue\n");
        assert!(text.contains("cloister.yaml:5:5") && text.contains("colour: blue"), "{text}");
    }
}
