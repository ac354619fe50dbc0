//! Limits for texts in a status, in bytes of JSON.
//!
//! Invariant: a length counts the encoded JSON, because that is what a frame limits. A text is truncated once, where it
//! is received.

/// Maximum length of a service's error text in bytes of JSON: what failed, a path and the system's error text.
pub const MAX_ERROR_TEXT: usize = 512;

/// `text` with each control character replaced by a space, truncated so that its JSON is at most `limit` bytes.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut left = limit;
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        // JSON escapes these two with a backslash and leaves all others unchanged (RFC 8259, section 7).
        let length = c.len_utf8().saturating_add(usize::from(matches!(c, '"' | '\\')));
        let Some(rest) = left.checked_sub(length) else { break };
        left = rest;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_length_of_a_text_counts_its_json() {
        assert_eq!(bounded("a\nb\u{7f}\0", 9), "a b  ");
        assert_eq!(bounded(&"\u{1}".repeat(600), 256), " ".repeat(256));
        assert_eq!(bounded(&"\"".repeat(600), 256), "\"".repeat(128));
        assert_eq!(bounded("ééé", 5), "éé");
    }

    proptest! {
        #[test]
        fn no_text_exceeds_its_limit(text: String, limit in 0usize..64) {
            let json = serde_json::to_string(&bounded(&text, limit)).unwrap();
            prop_assert!(json.len() <= limit + 2, "{}", json);
        }
    }
}
